"""NLEEP against LEEP's formula on the posteriors of a mixture that is written out; seeds, guards, the released variant."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, ortho_group
from sklearn.mixture import GaussianMixture

from metrics.nleep import METRICS, nleep, posteriors
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs
from tests.metrics.test_leep import log_expected_empirical_prediction

METRIC = METRICS[0]


def instance(seed=0, count=90, classes=3, dimensions=6, noise=0.5):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, count, p=[0.6, 0.3, 0.1])
    return pairs.unit(np.eye(dimensions)[labels] + noise * generator.standard_normal((count, dimensions))), labels


def posteriors_written_out(images, components, seed, covariances="diag"):
    """Principal components from an eigendecomposition, and Bayes' rule with the densities of the fitted mixture."""
    centred = images - images.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    kept = 1 + int(np.argmax(np.cumsum(values[::-1]) / values.sum() > 0.8))
    projected = centred @ vectors[:, ::-1][:, :kept]
    mixture = GaussianMixture(components, covariance_type=covariances, random_state=seed).fit(projected)
    parameters = zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)  # pdf takes a diagonal as a vector
    joint = np.array([weight * multivariate_normal(mean, covariance).pdf(projected) for weight, mean, covariance in parameters]).T
    return joint / joint.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_definition(seed):
    images, labels = instance()
    theta = posteriors_written_out(images, 15, seed)
    assert nleep(images, labels, seed) == pytest.approx(log_expected_empirical_prediction(theta, labels.tolist()), rel=1e-6)


def test_as_released_has_full_covariances_and_no_logarithm():
    images, labels = instance()
    theta = posteriors_written_out(images, 15, seed=0, covariances="full")
    joint = np.array([theta[labels == label].sum(axis=0) for label in range(3)])
    expected = np.mean([(joint[label] / joint.sum(axis=0)) @ row for label, row in zip(labels, theta, strict=True)])
    assert METRIC.score(Sample(images, labels=labels), as_released=True) == pytest.approx(expected, rel=1e-6)


def test_the_seed_decides():
    images, labels = instance(1)
    assert nleep(images, labels, seed=4) == nleep(images, labels, seed=4)
    assert len({nleep(images, labels, seed) for seed in range(4)}) > 1


def test_separated_classes_and_labels_at_random():
    images, labels = instance(2, noise=0.05)
    assert nleep(images, labels) == pytest.approx(0.0, abs=1e-6)
    shares = np.bincount(labels) / len(labels)
    entropy = -(shares * np.log(shares)).sum()
    assert -entropy <= nleep(images, np.random.default_rng(0).permutation(labels)) < -0.1 * entropy


def test_a_rotation_and_another_scale_change_nothing():
    images, labels = instance(3)
    assert nleep(images @ ortho_group.rvs(6, random_state=0), labels) == pytest.approx(nleep(images, labels), rel=1e-6)


def test_numbers_of_classes_without_images_do_not_count():
    images, labels = instance(4)
    assert nleep(images, np.array([2, 7, 5])[labels]) == pytest.approx(nleep(images, labels), rel=1e-12)


def test_repeated_images():
    images, labels = instance(5, count=12)
    assert np.isfinite(nleep(np.tile(images, (8, 1)), np.tile(labels, 8)))


def test_posteriors_are_probabilities():
    images, _ = instance(6)
    theta = posteriors(images, 15, seed=0)
    assert theta.shape == (90, 15)
    assert theta.sum(axis=1) == pytest.approx(1.0)


def test_standard_error_is_that_of_a_mean():
    images, labels = instance(7)
    theta = posteriors_written_out(images, 15, seed=0)
    joint = np.array([theta[labels == label].sum(axis=0) for label in range(3)])
    logs = np.log([(joint[label] / joint.sum(axis=0)) @ row for label, row in zip(labels, theta, strict=True)])
    assert METRIC.standard_error(Sample(images, labels=labels)) == pytest.approx(logs.std(ddof=1) / 90**0.5, rel=1e-5)


def test_five_images_per_class_are_too_few():
    images, labels = instance(8, count=15)
    labels[:3] = [0, 1, 2]
    with pytest.raises(MetricError, match="undefined for 15 images and 15 components; it needs more than 5 images per class"):
        nleep(images, labels)


def test_one_image_per_class():
    images, _ = instance(9)
    with pytest.raises(MetricError, match="90 images and 450 components"):
        nleep(images, np.arange(90))


def test_all_images_equal():
    with pytest.raises(MetricError, match="all images are equal"):
        nleep(np.tile([[0.6, 0.8]], (40, 1)), np.repeat([0, 1], 20))


def test_images_that_are_not_finite():
    images, labels = instance(10)
    images[17, 2] = np.nan
    with pytest.raises(MetricError, match="Row 17 of image_embeddings has a value that is not finite"):
        nleep(images, labels)


def test_leaves_its_input_as_it_was():
    images, labels = instance(11)
    images.setflags(write=False)
    labels.setflags(write=False)
    nleep(images, labels)
