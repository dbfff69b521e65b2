"""TransRate."""

import numpy as np
import pytest

from benchmarks import plain
from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.transrate import METRIC, transrate, transrate_as_released
from tests.metrics.features import DIGITS, IRIS, labelled, with_gaps


@pytest.mark.parametrize(("data", "expected"), [(IRIS, 0.58940540637), (DIGITS, 50.279312261)])
def test_golden_as_released(data, expected):
    """Values of the released code, whose classes weigh the same."""
    assert METRIC.as_released(Sample(data[0], labels=data[1])) == pytest.approx(expected, rel=1e-10)


def test_golden():
    """In iris all classes are equally large: both weightings agree."""
    assert transrate(*IRIS) == pytest.approx(0.58940540637, rel=1e-10)
    assert transrate(*DIGITS) != pytest.approx(50.279312261, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(60, 8), (60, 15), (20, 30), (8, 40)])  # classes smaller and larger than the dimension
@pytest.mark.parametrize("defect", ["", "low rank", "constant feature", "duplicated rows"])
def test_equals_the_determinants_of_full_size(seed, shape, defect):
    features, labels = labelled(seed, images=shape[0], dimensions=shape[1], defect=defect)
    assert transrate(features, labels) == pytest.approx(plain.transrate(features, labels), rel=1e-8)


def test_classes_larger_than_a_block(monkeypatch):
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 8 * 7)
    features, labels = labelled(0)
    assert transrate(features, labels) == pytest.approx(plain.transrate(features, labels), rel=1e-10)


def test_as_released_weighs_classes_equally():
    features, labels = labelled(1)
    centred = features - features.mean(axis=0)
    classes = [plain.coding_rate(centred[labels == label]) for label in range(4)]
    expected = plain.coding_rate(centred) - np.mean(classes)
    assert transrate_as_released(Sample(features, labels=labels)) == pytest.approx(expected, rel=1e-10)


def test_never_negative_as_the_rate_is_concave():
    for seed in range(30):
        assert transrate(*labelled(seed, images=12, separation=0.0, scale=0.01)) >= 0


def test_identical_images_score_nothing():
    assert transrate(np.full((6, 3), 0.1), [0, 1, 2, 0, 1, 2]) == pytest.approx(0, abs=1e-12)


def test_identical_classes_score_nothing():
    features, _ = labelled(2, images=20)
    assert transrate(np.tile(features, (3, 1)), np.repeat([0, 1, 2], 20)) == pytest.approx(0, abs=1e-12)


def test_one_image_per_class():
    features, _ = labelled(3, images=10)
    assert transrate(features, np.arange(10)) == pytest.approx(plain.transrate(features, np.arange(10)), rel=1e-10)


def test_perfectly_separated_classes():
    labels = np.repeat(np.arange(3), 4)
    assert transrate(np.eye(3)[labels], labels) == pytest.approx(plain.transrate(np.eye(3)[labels], labels), rel=1e-10)


def test_classes_without_images_are_ignored():
    features, labels = labelled(4)
    for function in (METRIC.from_sample, METRIC.as_released):
        gaps, without = (function(Sample(features, labels=of)) for of in (with_gaps(labels), labels))
        assert gaps == pytest.approx(without, rel=1e-12)


def test_one_class():
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        transrate(np.eye(3), [2, 2, 2])
