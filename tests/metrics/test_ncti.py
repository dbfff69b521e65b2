"""NCTI: its parts, one model's score, and several models compared."""

import numpy as np
import pytest

from benchmarks import plain
from metrics.ncti import METRIC, NctiParts, compare_ncti, ncti, ncti_parts
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics.features import DIGITS, labelled, with_gaps

GOLDEN = NctiParts(727.0984274, 0.961033027, 5.106678375)


def test_golden():
    """Values of the released code with 61 components, all that digits have."""
    assert ncti_parts(*DIGITS) == pytest.approx(GOLDEN, rel=1e-9)


def test_one_models_score():
    assert ncti(*DIGITS) == pytest.approx(GOLDEN.ncc + np.log(GOLDEN.seli) - GOLDEN.vc, rel=1e-9)
    assert METRIC.as_released(Sample(DIGITS[0], labels=DIGITS[1])) == pytest.approx(GOLDEN.ncc + GOLDEN.seli - GOLDEN.vc, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.05, 0.3, 5.0])  # shrunk much, shrunk, not shrunk
@pytest.mark.parametrize("classes", [2, 4, 12])
@pytest.mark.parametrize("defect", ["", "duplicated rows", "constant feature"])
@pytest.mark.filterwarnings("ignore:Only one sample available")  # scikit-learn, of classes with one image
def test_equals_scikit_learns_analysis(seed, scale, classes, defect):
    features, labels = labelled(seed, images=100, scale=scale, classes=classes, defect=defect)
    assert ncti_parts(features, labels) == pytest.approx(plain.ncti_parts(features, labels), rel=1e-8)


@pytest.mark.parametrize("shape", [(300, 100), (40, 70)])
@pytest.mark.parametrize("scale", [0.01, 0.03])
@pytest.mark.filterwarnings("ignore:Only one sample available")
def test_more_dimensions_than_components(shape, scale):
    features, labels = labelled(4, images=shape[0], dimensions=shape[1], scale=scale)
    assert ncti_parts(features, labels) == pytest.approx(plain.ncti_parts(features, labels), rel=1e-8)


def test_dependent_features():
    features, labels = labelled(5, defect="low rank")
    assert ncti_parts(features, labels) == pytest.approx(plain.ncti_parts(features, labels), rel=1e-8)


def test_more_images_than_fit_a_block(monkeypatch):
    features, labels = labelled(6)
    expected = ncti_parts(features, labels)
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 8 * 7)
    assert ncti_parts(features, labels) == pytest.approx(expected, rel=1e-12)


def test_collapsed_classes_are_known_with_certainty():
    """Every class near a point of its own: each image has probability 1, in n_c rows of nuclear norm sqrt(n_c)."""
    labels = np.repeat(np.arange(4), 9)
    features = 100 * np.eye(4)[labels] + np.random.default_rng(0).standard_normal((36, 4))
    parts = ncti_parts(features, labels)
    assert parts.ncc == pytest.approx(1, abs=1e-9)
    assert parts.vc == pytest.approx(np.log(4 * 3), abs=1e-6)
    assert parts.score > ncti(*labelled(7, separation=0.1))


def test_identical_classes():
    features, _ = labelled(8, images=20)
    with pytest.raises(MetricError, match="ncti is undefined when all classes have the same mean"):
        ncti(np.tile(features, (3, 1)), np.repeat([0, 1, 2], 20))


@pytest.mark.parametrize("features", [np.eye(5), np.full((5, 3), 0.1)])
def test_no_class_with_two_different_images(features):
    with pytest.raises(MetricError, match="ncti is undefined when no class has two different images"):
        ncti(features, np.arange(5))


def test_classes_without_images_are_ignored():
    features, labels = labelled(9)
    assert ncti_parts(features, with_gaps(labels)) == pytest.approx(ncti_parts(features, labels), rel=1e-12)


def test_one_class():
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        ncti(np.eye(3), [2, 2, 2])


def test_several_models_as_in_the_paper():
    models = [NctiParts(10.0, 0.5, 3.0), NctiParts(20.0, 0.9, 4.0), NctiParts(15.0, 0.6, 5.0)]
    np.testing.assert_allclose(compare_ncti(models), [0.0, 1 + 1 - 0.5, 0.5 + 0.25 - 1], atol=1e-12)


def test_equal_parts_count_nothing():
    same = NctiParts(10.0, 0.5, 3.0)
    assert compare_ncti([same, same]).tolist() == [0.0, 0.0]
    assert compare_ncti([same]).tolist() == [0.0]
    assert compare_ncti([]).tolist() == []


def test_one_models_score_depends_on_no_other_model():
    """That of the paper does: adding a model changes the order of the others' differences."""
    models = [NctiParts(10.0, 0.5, 3.0), NctiParts(20.0, 0.6, 4.0)]
    more = [*models, NctiParts(1000.0, 0.55, 3.5)]
    assert not np.allclose(np.diff(compare_ncti(models)), np.diff(compare_ncti(more)[:2]))
    assert [model.score for model in models] == [model.score for model in more[:2]]
