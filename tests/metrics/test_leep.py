"""LEEP against triple loops, its bounds, and what classifiers without information score."""

import math

import numpy as np
import pytest

from metrics.leep import expected_predictions, leep
from metrics.statistics import MetricError
from tests.metrics import pairs

INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "fewer images than dimensions": pairs.random_instance(1, images=12, dimensions=40),
    "narrow": pairs.random_instance(2, spread=0.05),
    "classes without images": pairs.random_instance(3, classes=12, empty=9),
}


def log_expected_empirical_prediction(theta, labels):
    """Equation 2 of the paper, with the joint and the marginal as they are written there."""
    count, sources = theta.shape
    joint = {(y, z): sum(theta[i, z] for i in range(count) if labels[i] == y) / count for y in set(labels) for z in range(sources)}
    marginal = [sum(joint[y, z] for y in set(labels)) for z in range(sources)]
    return sum(math.log(sum(joint[labels[i], z] / marginal[z] * theta[i, z] for z in range(sources))) for i in range(count)) / count


def softmax(scores):
    return np.array([[math.exp(s - max(row)) / sum(math.exp(t - max(row)) for t in row) for s in row] for row in scores])


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_equals_the_definition(instance, scale):
    images, texts, labels = instance
    expected = log_expected_empirical_prediction(softmax(scale * images @ texts.T), labels.tolist())
    assert leep(images, texts, labels, logit_scale=scale) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_lies_between_minus_the_entropy_of_the_labels_and_zero(instance):
    images, texts, labels = instance
    shares = np.bincount(labels)[np.unique(labels)] / len(labels)
    entropy = -(shares * np.log(shares)).sum()
    assert -entropy < leep(images, texts, labels) < 0
    assert leep(images, texts, labels, logit_scale=0.0) == pytest.approx(-entropy, rel=1e-12)  # says the same of every image


def test_texts_that_tell_all_classes():
    images, labels = np.repeat(np.eye(4), 3, axis=0), np.repeat(np.arange(4), 3)
    assert leep(images, np.eye(4), labels, logit_scale=1e4) == 0.0
    assert leep(images, np.eye(4)[[1, 2, 3, 0]], labels, logit_scale=1e4) == 0.0  # wrong names, as good a source


def test_all_images_equal():
    texts, labels = pairs.random_instance(4)[1], np.array([0, 0, 0, 1])
    images = np.tile(pairs.unit(np.ones((1, 16))), (4, 1))
    assert leep(images, texts, labels) == pytest.approx(0.75 * np.log(0.75) + 0.25 * np.log(0.25), rel=1e-12)


def test_one_image_per_class():
    images, texts, _ = pairs.random_instance(5, images=6, classes=6)
    expected = log_expected_empirical_prediction(softmax(100 * images @ texts.T), list(range(6)))
    assert leep(images, texts, np.arange(6)) == pytest.approx(expected, rel=1e-8)


def test_repeating_all_images_changes_nothing():
    images, texts, labels = pairs.random_instance(6)
    assert leep(np.tile(images, (3, 1)), texts, np.tile(labels, 3)) == pytest.approx(leep(images, texts, labels), rel=1e-12)


def test_a_source_class_without_any_probability():
    theta = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert expected_predictions(theta, np.array([0, 0, 1])).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_no_image():
    images, texts, labels = pairs.random_instance(7)
    with pytest.raises(MetricError, match="leep is undefined for 0 images"):
        leep(images[:0], texts, labels[:0])


def test_leaves_its_input_as_it_was():
    inputs = pairs.random_instance(8)
    for value in inputs:
        value.setflags(write=False)
    leep(*inputs)
