"""The linear probe against fitting each fold by minimising its loss written out; folds, seeds, classes too small to split."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from metrics.linear_probe import METRICS, linear_probe, stratified_folds
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs

METRIC = METRICS[0]


def instance(seed=0, count=60, classes=4, dimensions=8, noise=0.6):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, count, p=generator.dirichlet(5 * np.ones(classes)))
    labels[:classes] = np.arange(classes)
    return pairs.unit(np.eye(dimensions)[labels] + noise * generator.standard_normal((count, dimensions))), labels


def cross_validated(images, labels, seed):
    """C sum of cross-entropies + |W|^2 / 2, minimised in W and the intercepts without a gradient being given."""
    folds, correct = stratified_folds(labels, 5, seed), 0
    shape = (int(labels.max()) + 1, images.shape[1] + 1)
    extended = np.concatenate([images, np.ones((len(images), 1))], axis=1)
    for fold in range(5):
        x, y = extended[folds != fold], labels[folds != fold]

        def loss(flat, x=x, y=y):
            weights = flat.reshape(shape)
            scores = x @ weights.T
            return 31.6 * (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).sum() + (weights[:, :-1] ** 2).sum() / 2

        weights = minimize(loss, np.zeros(np.prod(shape)), method="L-BFGS-B", options={"maxfun": 10**6}).x.reshape(shape)
        correct += ((extended[folds == fold] @ weights.T).argmax(axis=1) == labels[folds == fold]).sum()
    return correct / len(images)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_definition(seed):
    images, labels = instance(count=40, classes=3, dimensions=4)
    accuracy = linear_probe(images, labels, seed)
    assert accuracy == cross_validated(images, labels, seed)
    assert 0.4 < accuracy < 1.0  # so that it could differ


def test_folds_are_even_in_size_and_in_classes():
    labels = np.random.default_rng(0).choice(5, 103, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    folds = stratified_folds(labels, 5, seed=3)
    for chosen in [np.ones(103, bool), *(labels == label for label in range(5))]:
        sizes = np.bincount(folds[chosen], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_the_seed_decides_the_folds():
    labels = np.repeat([0, 1, 2], 20)
    assert np.array_equal(stratified_folds(labels, 5, 1), stratified_folds(labels, 5, 1))
    assert not np.array_equal(stratified_folds(labels, 5, 1), stratified_folds(labels, 5, 2))
    images, labels = instance(1)
    assert linear_probe(images, labels, 5) == linear_probe(images, labels, 5)


def test_separated_classes():
    images, labels = instance(2, noise=0.01)
    assert linear_probe(images, labels) == 1.0


def test_numbers_of_classes_without_images_do_not_count():
    images, labels = instance(3)
    assert linear_probe(images, np.array([3, 13, 8, 5])[labels]) == linear_probe(images, labels)


def test_one_image_per_class_is_always_missed():
    images, _ = instance(4, count=8)
    assert linear_probe(images, np.arange(8)) == 0.0


def test_two_images():
    assert linear_probe([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0.0


def test_fewer_images_than_folds_leave_one_out_each():
    images, labels = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0], [-0.6, -0.8]]), np.array([0, 0, 1, 1])
    assert stratified_folds(labels, 5, 0).max() == 3
    assert linear_probe(images, labels) == 1.0


def test_all_images_equal():
    """The most frequent class of the other folds is predicted."""
    images, labels = np.tile([[0.6, 0.8]], (20, 1)), np.repeat([0, 1], [15, 5])
    assert linear_probe(images, labels) == 0.75


def test_fewer_images_than_dimensions_and_repeated_rows():
    images, labels = instance(5, count=12, dimensions=40, noise=0.05)
    assert linear_probe(np.repeat(images, 2, axis=0), np.repeat(labels, 2)) == 1.0


def test_standard_error_is_binomial_and_fits_nothing_again(monkeypatch):
    images, labels = instance(6)
    sample = Sample(images, labels=labels)
    accuracy = METRIC.score(sample)
    monkeypatch.setattr("metrics.linear_probe.predicted", None)
    assert METRIC.standard_error(sample) == pytest.approx((accuracy * (1 - accuracy) / 60) ** 0.5)


def test_one_class_and_one_image():
    images, labels = instance(7)
    with pytest.raises(MetricError, match="linear_probe is undefined for 1 class with images; it needs at least 2"):
        linear_probe(images, np.full_like(labels, 2))
    with pytest.raises(MetricError, match="linear_probe is undefined for 1 image; it needs at least 2"):
        linear_probe(images[:1], labels[:1])


def test_images_that_are_not_finite():
    images, labels = instance(8)
    images[17, 2] = np.nan
    with pytest.raises(MetricError, match="Row 17 of image_embeddings has a value that is not finite"):
        linear_probe(images, labels)


def test_leaves_its_input_as_it_was():
    images, labels = instance(9)
    images.setflags(write=False)
    labels.setflags(write=False)
    linear_probe(images, labels)
