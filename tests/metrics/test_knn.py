"""Nearest neighbours against sorting all of them; what ties and blocks do."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.neighbors import KNeighborsClassifier

from metrics import knn as module
from metrics.knn import METRICS, knn
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs

INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "fewer images than dimensions": pairs.random_instance(1, images=12, dimensions=40),
    "narrow": pairs.random_instance(2, spread=0.05),
    "classes without images": pairs.random_instance(3, classes=12, empty=9),
    "fewer images than neighbours": pairs.random_instance(4, images=4),
}


def leave_one_out(images, labels, k):
    """Sort by similarity (rounded, so that equal ones are equal) and index; the earliest of the most frequent labels."""
    correct = 0
    for i, image in enumerate(images):
        others = sorted((j for j in range(len(images)) if j != i), key=lambda j: (-round(float(image @ images[j]), 11), j))
        nearest = [labels[j] for j in others[:k]]
        counts = Counter(nearest)
        correct += next(label for label in nearest if counts[label] == max(counts.values())) == labels[i]
    return correct / len(images)


@pytest.mark.parametrize("k", [1, 2, 5, 100])
@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_equals_the_definition(instance, k):
    images, _, labels = instance
    assert knn(images, labels, k) == leave_one_out(images, labels, k)


def test_one_neighbour_is_that_of_scikit_learn():
    images, _, labels = INSTANCES["unbalanced"]
    rest = [np.delete(np.arange(60), i) for i in range(60)]
    right = [
        KNeighborsClassifier(1, metric="cosine").fit(images[rows], labels[rows]).predict(images[[i]])[0] == labels[i]
        for i, rows in enumerate(rest)
    ]
    assert knn(images, labels, 1) == np.mean(right)


@pytest.mark.parametrize("k", [1, 5])
def test_repeated_images_tie_and_the_first_is_nearer(k):
    images, _, labels = pairs.random_instance(5, images=15)
    images, labels = np.repeat(images, 4, axis=0), np.tile(labels, 4)
    assert knn(images, labels, k) == leave_one_out(images, labels, k)
    rotated = images @ ortho_group.rvs(16, random_state=0)
    assert knn(rotated, labels, k) == leave_one_out(images, labels, k)


@pytest.mark.parametrize("block", [1, 40 * 7, 10**6])
def test_the_size_of_blocks_changes_nothing(block, monkeypatch):
    images, _, labels = pairs.random_instance(6)
    images[::3] = images[0]
    monkeypatch.setattr(module, "BLOCK_SIMILARITIES", block)
    assert knn(images, labels) == leave_one_out(images, labels, 5)


def test_the_default_is_five_neighbours():
    images, _, labels = pairs.random_instance(7)
    assert METRICS[0].function(images, labels) == leave_one_out(images, labels, 5)


def test_classes_apart_and_one_image_per_class():
    images = np.repeat(np.eye(3), 6, axis=0)
    assert knn(images, np.repeat([0, 1, 2], 6)) == 1.0
    assert knn(images, np.arange(18)) == 0.0


def test_a_vote_that_ties_goes_to_the_nearest():
    images = np.array([[1.0, 0.0], [0.99, 0.01], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    assert module.vote(np.array([[4, 3, 3, 4], [3, 4, 4, 5], [9, 8, 7, 6]])).tolist() == [4, 4, 9]
    assert module.nearest_others(images, slice(0, 2), 3).tolist() == [[1, 2, 3], [0, 2, 3]]


def test_standard_error_is_binomial():
    images, _, labels = pairs.random_instance(8)
    accuracy = knn(images, labels)
    assert METRICS[0].standard_error(Sample(images, labels=labels)) == pytest.approx((accuracy * (1 - accuracy) / 40) ** 0.5)


def test_one_image():
    with pytest.raises(MetricError, match="knn is undefined for 1 image; it needs at least 2"):
        knn([[1.0, 0.0]], [0])


def test_leaves_its_input_as_it_was():
    images, _, labels = pairs.random_instance(9)
    images.setflags(write=False)
    labels.setflags(write=False)
    knn(images, labels)
