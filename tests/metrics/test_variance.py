"""Total variance and the ratio of scatters against loops."""

import numpy as np
import pytest

from metrics.iimm import image_image
from metrics.statistics import MetricError
from metrics.variance import between_within_ratio, total_variance
from tests.metrics import pairs

INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "fewer images than dimensions": pairs.random_instance(1, images=12, dimensions=40),
    "narrow": pairs.random_instance(2, spread=0.01),
    "classes without images": pairs.random_instance(3, classes=12, empty=9),
}


def ratio(images, labels):
    mean = images.mean(axis=0)
    between = within = 0.0
    for label in set(labels.tolist()):
        own = images[labels == label]
        between += len(own) * ((own.mean(axis=0) - mean) ** 2).sum()
        within += sum(((row - own.mean(axis=0)) ** 2).sum() for row in own)
    return between / within


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_equals_the_definition(instance):
    images, _, labels = instance
    assert total_variance(images) == pytest.approx(np.trace(np.cov(images.T, bias=True)), rel=1e-8)
    assert between_within_ratio(images, labels) == pytest.approx(ratio(images, labels), rel=1e-8)


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_more_variance_is_a_smaller_mean_cosine(instance):
    images, count = instance[0], len(instance[0])
    squared_mean = 1 - total_variance(images)
    assert image_image(images) == pytest.approx((count * squared_mean - 1) / (count - 1), abs=1e-12)


def test_repeating_all_images_changes_neither():
    images, _, labels = pairs.random_instance(4)
    assert total_variance(np.tile(images, (3, 1))) == pytest.approx(total_variance(images), rel=1e-12)
    assert between_within_ratio(np.tile(images, (3, 1)), np.tile(labels, 3)) == pytest.approx(
        between_within_ratio(images, labels), rel=1e-12
    )


def test_all_images_equal():
    images = np.tile(pairs.random_instance(5)[0][:1], (7, 1))
    assert total_variance(images) == 0.0
    with pytest.raises(MetricError, match="in each class all images are equal"):
        between_within_ratio(images, [0, 0, 0, 0, 1, 1, 1])


def test_one_image_per_class():
    with pytest.raises(MetricError, match="in each class all images are equal"):
        between_within_ratio(pairs.random_instance(6)[0], np.arange(40))


def test_equal_class_means():
    images = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert between_within_ratio(images, [0, 0, 1, 1]) == 0.0
    assert between_within_ratio(images, [0, 0, 0, 0]) == 0.0


def test_too_few_images():
    with pytest.raises(MetricError, match="total_variance is undefined for 0 images"):
        total_variance(np.zeros((0, 3)))
    with pytest.raises(MetricError, match="between_within_ratio is undefined for 1 image"):
        between_within_ratio([[1.0, 0.0]], [0])


def test_leaves_its_input_as_it_was():
    images, _, labels = pairs.random_instance(7)
    images.setflags(write=False)
    labels.setflags(write=False)
    total_variance(images)
    between_within_ratio(images, labels)
