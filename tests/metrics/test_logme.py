"""LogME: the greatest evidence of a Bayesian linear model, with more and with fewer images than dimensions."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from benchmarks import plain
from metrics.logme import logme, logme_as_released, logme_of, mean_evidence, regression_from_scatter, regression_of
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics.features import DIGITS, IRIS, labelled, with_gaps


def dense(features, labels):
    """Mean over classes of max_l of the Gaussian density of the labels, whose covariance is (I + X X^T / l) / b, over N."""
    return np.mean([_greatest(features, (labels == label).astype(float)) for label in np.unique(labels)])


def _greatest(features, target):
    count = len(target)

    def negative(log_ratio):
        shape = np.eye(count) + features @ features.T / np.exp(log_ratio)
        noise = target @ np.linalg.solve(shape, target) / count  # the best 1 / b
        covariance = 2 * np.pi * noise * shape
        return (np.linalg.slogdet(covariance)[1] + 2 * np.pi * target @ np.linalg.solve(covariance, target)) / 2 / count

    grid = np.arange(-22.0, 25.0, 0.5)
    start = grid[np.argmin([negative(point) for point in grid])]
    return -minimize_scalar(negative, bounds=(start - 0.5, start + 0.5), method="bounded", options={"xatol": 1e-9}).fun


@pytest.mark.parametrize(("data", "expected"), [(IRIS, -0.1600602), (DIGITS, 0.2702775)])
def test_golden(data, expected):
    """Values of the first implementations, which stop iterating some 1e-7 before the maximum; flair pins -0.160060220 for iris."""
    assert logme(*data) == pytest.approx(expected, abs=2e-7)
    assert logme_as_released(Sample(data[0], labels=data[1])) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(60, 8), (40, 39), (40, 40), (20, 30), (12, 100)])
def test_equals_the_dense_density(seed, shape):
    features, labels = labelled(seed, images=shape[0], dimensions=shape[1], scale=0.3)
    assert logme(features, labels) == pytest.approx(dense(features, labels), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("defect", ["low rank", "constant feature", "duplicated rows"])
def test_equals_the_dense_density_of_dependent_features(seed, defect):
    features, labels = labelled(seed, images=30, defect=defect)
    assert logme(features, labels) == pytest.approx(dense(features, labels), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_fixed_point_carried_to_its_end(seed):
    features, labels = labelled(seed, images=200, classes=3, separation=3.0)
    assert logme(features, labels) == pytest.approx(plain.logme(features, labels, tolerance=1e-9), rel=1e-8)


@pytest.mark.parametrize("shape", [(60, 8), (20, 30)])
def test_second_moments_are_enough(shape):
    """Also with fewer images than dimensions, where the other Gram matrix is cheaper."""
    features, labels = labelled(1, images=shape[0], dimensions=shape[1])
    sample = Sample(features, labels=labels)
    assert mean_evidence(regression_from_scatter(sample.scatter)) == pytest.approx(logme_of(sample), rel=1e-8)


def test_no_other_ratio_has_more_evidence():
    features, labels = labelled(2, images=25, dimensions=25)
    of = regression_of(Sample(features, labels=labels))
    for ratio in np.logspace(-12, 12, 100):
        shares = ratio / (ratio + of.eigenvalues)
        errors = of.residuals + of.projections @ shares
        evidence = (np.log(shares).sum() + of.count * np.log(of.count / errors / (2 * np.pi)) - of.count) / 2
        assert evidence.mean() / of.count <= logme(features, labels) + 1e-12


def test_as_released_agrees_with_more_images_than_dimensions():
    features, labels = labelled(3, images=300)
    assert logme_as_released(Sample(features, labels=labels)) == pytest.approx(logme(features, labels), abs=1e-3)


def test_as_released_is_no_evidence_with_fewer():
    """log(a) is counted D times and subtracted N times, so the number grows with dimensions that hold nothing."""
    features, labels = labelled(4, images=20, dimensions=40, scale=0.1)
    wider = np.column_stack([features, np.zeros((20, 400))])
    released = [logme_as_released(Sample(of, labels=labels)) for of in (features, wider)]
    assert released[1] - released[0] > 1
    assert logme(wider, labels) == pytest.approx(logme(features, labels), rel=1e-9)


def test_useless_features_leave_noise_alone():
    """Features of zeros: the density of the labels under a Gaussian without a mean, at its best variance n_c / N."""
    labels = np.repeat([0, 1, 2], [5, 7, 8])
    shares = np.array([5, 7, 8]) / 20
    expected = np.mean(-(np.log(2 * np.pi * shares) + 1) / 2)
    assert logme(np.zeros((20, 4)), labels) == pytest.approx(expected, rel=1e-12)


def test_perfectly_separated_classes_have_no_bound():
    labels = np.repeat(np.arange(3), 4)
    for features in (np.eye(3)[labels], np.eye(3)[labels] @ np.random.default_rng(0).standard_normal((3, 30))):
        with pytest.raises(MetricError, match="logme has no bound when a linear function of the features gives the labels"):
            logme(features, labels)


def test_orthogonal_images_one_per_class():
    """X = I: the labels are as likely as noise as with any weights; the limit l = 0 is the best there is, to the last digit."""
    assert logme(np.eye(5), np.arange(5)) == pytest.approx(dense(np.eye(5), np.arange(5)), abs=1e-8)


def test_identical_classes():
    features, _ = labelled(5, images=10)
    features, labels = np.tile(features, (3, 1)), np.repeat([0, 1, 2], 10)
    assert logme(features, labels) == pytest.approx(dense(features, labels), abs=1e-8)


def test_classes_without_images_are_ignored():
    features, labels = labelled(6)
    for function in (logme_of, logme_as_released):
        gaps, without = (function(Sample(features, labels=of)) for of in (with_gaps(labels), labels))
        assert gaps == pytest.approx(without, rel=1e-12)


def test_one_class():
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        logme(np.eye(3), [2, 2, 2])
