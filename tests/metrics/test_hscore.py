"""H-score, plain and regularised."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage as reference_shrinkage

from benchmarks import plain
from metrics.hscore import fourth_powers, hscore, hscore_regularized, ledoit_wolf_shrinkage
from metrics.statistics import MetricError
from tests.metrics.features import DEFECTS, DIGITS, IRIS, labelled, with_gaps


@pytest.mark.parametrize(("data", "expected"), [(IRIS, 1.1918988250416), (DIGITS, 5.917909336695)])
def test_golden(data, expected):
    """Values of the first implementation in float64."""
    assert hscore(*data) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("data", "expected"), [(IRIS, 1.1778424993), (DIGITS, 5.851432998)])
def test_golden_regularized(data, expected):
    """Values of the Transfer-Learning-Library; flair pins 1.177842480 for iris, in float32."""
    assert hscore_regularized(*data) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("defect", DEFECTS)
def test_equals_the_pseudo_inverse(seed, defect):
    features, labels = labelled(seed, defect=defect)
    comparable = labelled(seed) if "units" in defect else (features, labels)  # numpy's takes features of small units for zero
    assert hscore(features, labels) == pytest.approx(plain.hscore(*comparable), rel=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(60, 8), (20, 30)])
@pytest.mark.parametrize("defect", ["", "low rank", "constant feature", "duplicated rows"])
def test_regularized_equals_the_library_form(seed, shape, defect):
    features, labels = labelled(seed, images=shape[0], dimensions=shape[1], defect=defect)
    assert hscore_regularized(features, labels) == pytest.approx(plain.hscore_regularized(features, labels), rel=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_shrinkage_is_that_of_ledoit_and_wolf(seed):
    features, _ = labelled(seed, images=15)
    mean = features.mean(axis=0)
    covariance = np.cov(features, rowvar=False, bias=True)
    assert ledoit_wolf_shrinkage(covariance, fourth_powers(features, mean), 15) == pytest.approx(reference_shrinkage(features), rel=1e-12)


@pytest.mark.parametrize("images", [6, 20])
def test_fewer_images_than_dimensions_reach_the_bound(images):
    """With no more images than dimensions a linear map tells any classes apart: C - 1, not the noise of a singular matrix."""
    features, labels = labelled(0, images=images, dimensions=50)
    assert hscore(features, labels) == pytest.approx(3, rel=1e-10)


def test_perfectly_separated_classes_reach_the_bound():
    labels = np.repeat(np.arange(5), 10)
    assert hscore(np.eye(7)[labels], labels) == pytest.approx(4, rel=1e-10)


def test_one_image_per_class_has_the_rank_of_the_features():
    features, _ = labelled(1, images=10, dimensions=4)
    assert hscore(features, np.arange(10)) == pytest.approx(4, rel=1e-10)


def test_identical_classes_score_nothing():
    features, _ = labelled(2, images=20)
    assert hscore(np.tile(features, (3, 1)), np.repeat([0, 1, 2], 20)) == pytest.approx(0, abs=1e-12)


def test_identical_images_score_nothing():
    assert hscore(np.full((6, 3), 0.1), [0, 1, 2, 0, 1, 2]) == 0.0
    assert hscore_regularized(np.full((6, 3), 0.1), [0, 1, 2, 0, 1, 2]) == 0.0


@pytest.mark.parametrize("function", [hscore, hscore_regularized])
def test_classes_without_images_are_ignored(function):
    features, labels = labelled(3)
    assert function(features, with_gaps(labels)) == pytest.approx(function(features, labels), rel=1e-12)


def test_bounded_by_the_rank():
    """Five features, three of them independent, and six classes."""
    for seed in range(20):
        features, labels = labelled(seed, classes=6, dimensions=5, separation=10.0, defect="low rank")
        assert 0 <= hscore(features, labels) <= 3 + 1e-9


def test_one_dimension():
    features, labels = labelled(5, dimensions=1)
    assert hscore(features, labels) == pytest.approx(np.var(plain.class_means_of_images(features, labels)) / np.var(features), rel=1e-12)


def test_of_any_scale_and_origin():
    features, labels = labelled(4)
    assert hscore(1e-6 * features + 3, labels) == pytest.approx(hscore(features, labels), rel=1e-8)


@pytest.mark.parametrize("function", [hscore, hscore_regularized])
def test_one_class(function):
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        function(np.eye(3), [2, 2, 2])
