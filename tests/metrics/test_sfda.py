"""SFDA."""

import numpy as np
import pytest

from benchmarks import plain
from metrics.sample import Sample
from metrics.sfda import greatest_eigenvalue, power_method, sfda, sfda_as_released
from metrics.statistics import MetricError
from tests.metrics.features import DIGITS, IRIS, labelled, with_gaps


@pytest.mark.parametrize(("data", "expected"), [(IRIS, 0.876493434), (DIGITS, 0.815309459567)])
def test_golden(data, expected):
    """Values of the released code, run on a copy."""
    assert sfda(*data) == pytest.approx(expected, rel=1e-9)
    assert sfda_as_released(Sample(data[0], labels=data[1])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.05, 0.3, 5.0])  # shrinkage near 1, in between, and at its least
@pytest.mark.parametrize("defect", ["", "duplicated rows", "constant feature"])
def test_equals_the_generalised_eigenvectors(seed, scale, defect):
    features, labels = labelled(seed, scale=scale, defect=defect)
    assert sfda(features, labels) == pytest.approx(plain.sfda(features, labels), rel=1e-8)


@pytest.mark.parametrize("scale", [0.05, 0.3])
@pytest.mark.parametrize("shape", [(20, 30), (60, 8)])
def test_fewer_images_than_dimensions_and_dependent_features(scale, shape):
    features, labels = labelled(4, images=shape[0], dimensions=shape[1], scale=scale, defect="low rank")
    assert sfda(features, labels) == pytest.approx(plain.sfda(features, labels), rel=1e-8)


def test_more_images_than_fit_a_block(monkeypatch):
    features, labels = labelled(5)
    expected = sfda(features, labels)
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 8 * 7)
    assert sfda(features, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("function", [sfda_as_released, lambda sample: sfda(sample.images, sample.labels)])
def test_leaves_the_images_as_they_were(function):
    """The released code mixes in place, so that what is computed after it is of other images."""
    features, labels = labelled(6)
    before = features.copy()
    function(Sample(features, labels=labels))
    np.testing.assert_array_equal(features, before)


def test_the_power_method_is_an_estimate():
    features, labels = labelled(7, dimensions=30, images=200, scale=0.1)
    covariance = np.cov(features, rowvar=False)
    assert power_method(covariance) <= greatest_eigenvalue(covariance)
    assert greatest_eigenvalue(covariance) == pytest.approx(np.linalg.eigvalsh(covariance)[-1], rel=1e-12)
    sample = Sample(features, labels=labels)
    assert sfda_as_released(sample) != pytest.approx(sfda(features, labels), abs=1e-3)


def test_the_power_method_by_hand():
    """Of diag(2, 1) the six steps from (2, 1) are (2^k, 1), and the estimate is that between the last two."""
    last, before = (np.array([2.0**k, 1.0]) / np.hypot(2.0**k, 1.0) for k in (7, 6))
    assert power_method(np.diag([2.0, 1.0])) == pytest.approx(last @ np.diag([2.0, 1.0]) @ before, rel=1e-14)


def test_perfectly_separated_classes_score_one():
    features, labels = labelled(8)
    assert sfda(features + 1e3 * np.eye(8)[labels], labels) == pytest.approx(1, abs=1e-6)


def test_identical_classes_score_their_share():
    features, _ = labelled(9, images=20)
    assert sfda(np.tile(features, (4, 1)), np.repeat(np.arange(4), 20)) == pytest.approx(1 / 4, rel=1e-9)


@pytest.mark.parametrize("features", [np.eye(5), np.full((5, 3), 0.1)])
def test_no_class_with_two_different_images(features):
    with pytest.raises(MetricError, match="sfda is undefined when no class has two different images"):
        sfda(features, np.arange(5))


def test_one_image_in_each_class_but_one():
    features, _ = labelled(10, images=8)
    labels = np.array([0, 0, 0, 0, 0, 1, 2, 3])
    assert sfda(features, labels) == pytest.approx(plain.sfda(features, labels), rel=1e-8)


def test_classes_without_images_are_ignored():
    features, labels = labelled(11)
    for function in (lambda of: sfda(of.images, of.labels), sfda_as_released):
        gaps, without = (function(Sample(features, labels=of)) for of in (with_gaps(labels), labels))
        assert gaps == pytest.approx(without, rel=1e-10)


def test_one_class():
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        sfda(np.eye(3), [2, 2, 2])
