"""Second moments by class, against loops."""

import numpy as np
import pytest

from metrics.sample import Sample
from metrics.scatter import scatter, squares
from metrics.statistics import MetricError
from tests.metrics.features import labelled


def loops(features, labels, classes):
    """W, B, the scatter about the mean, X^T X and the squares by class, image by image."""
    dimensions = features.shape[1]
    within, about, gram = (np.zeros((dimensions, dimensions)) for _ in range(3))
    by_class, mean = np.zeros((classes, dimensions)), np.mean(features, axis=0)
    for x, label in zip(features, labels, strict=True):
        of_class = np.mean(features[labels == label], axis=0)
        within += np.outer(x - of_class, x - of_class)
        about += np.outer(x - mean, x - mean)
        gram += np.outer(x, x)
        by_class[label] += (x - of_class) ** 2
    return within, about - within, about, gram, by_class


def parts(of, by):
    return of.within, of.between, of.centred, of.gram, by.class_squares


@pytest.mark.parametrize("defect", ["", "low rank", "constant feature", "duplicated rows"])
@pytest.mark.parametrize("block", [8 * 7, 1 << 18])
def test_equals_the_loops(defect, block, monkeypatch):
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", block)  # seven rows at a time, or all
    features, labels = labelled(0, defect=defect)
    for got, expected in zip(parts(scatter(features, labels, 6), squares(features, labels, 6)), loops(features, labels, 6), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_merging_shards_in_any_order_gives_the_whole():
    features, labels = labelled(1)
    whole = parts(scatter(features, labels, 4), squares(features, labels, 4))
    first, *others = np.array_split(np.random.default_rng(0).permutation(len(labels)), 5)
    of, by = (make(features[first], labels[first], 4) for make in (scatter, squares))
    for shard in others:
        of = scatter(features[shard], labels[shard], 4) + of
        by = squares(features[shard], labels[shard], 4) + by
    for merged, expected in zip(parts(of, by), whole, strict=True):
        np.testing.assert_allclose(merged, expected, rtol=1e-12, atol=1e-12)


def test_merging_with_a_shard_without_images_changes_nothing():
    features, labels = labelled(1)
    whole, nothing = scatter(features, labels, 4), scatter(features[:0], labels[:0], 4)
    for merged in (whole + nothing, nothing + whole):
        np.testing.assert_array_equal(merged.within, whole.within)
        np.testing.assert_array_equal(merged.class_means, whole.class_means)


def test_a_far_origin_costs_no_digits():
    features, labels = labelled(2)
    near, far = scatter(features, labels, 4), scatter(features + 1e6, labels, 4)
    np.testing.assert_allclose(far.centred, near.centred, rtol=1e-8)


def test_equal_values_have_no_scatter():
    of = squares(np.full((1000, 2), 0.1), np.arange(1000) % 3, 3)
    assert of.class_squares.max() < 1e-24


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sums_in_float64_whatever_the_storage(dtype):
    features, labels = labelled(3)
    stored = features.astype(dtype)
    expected = scatter(stored.astype(np.float64), labels, 4)
    np.testing.assert_array_equal(scatter(stored, labels, 4).within, expected.within)


def test_classes_without_images():
    features, labels = labelled(4)
    of = scatter(features, labels + 1, 7)
    assert of.present.tolist() == [1, 2, 3, 4]
    assert not of.class_means[[0, 5, 6]].any()
    assert of.compact.class_means.tolist() == scatter(features, labels, 4).class_means.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
    features, labels = labelled(5)
    features[17, 3] = value
    with pytest.raises(MetricError, match="Row 17 of image_embeddings has a value that is not finite"):
        scatter(features, labels, 4)


def test_values_too_large_to_square():
    with np.errstate(over="ignore"), pytest.raises(MetricError, match="too large for their squares"):
        scatter(np.array([[1e300], [-1e300]]), [0, 0], 1)


def test_shards_of_different_classes():
    features, labels = labelled(6)
    with pytest.raises(MetricError, match="shards need the same classes"):
        scatter(features, labels, 4) + scatter(features, labels, 5)


def test_a_sample_computes_what_is_shared_once(monkeypatch):
    features, labels = labelled(7)
    sample = Sample(features, labels=labels)
    assert sample.scatter is sample.scatter
    assert sample.squares.class_means is sample.scatter.class_means
    assert sample.classes == 4


def test_a_subset_is_a_sample_of_its_own():
    features, labels = labelled(8)
    whole = Sample(features, labels=labels, seed=3)
    chosen = np.array([5, 5, 9, 30, 2])
    part = whole.subset(chosen)
    np.testing.assert_array_equal(part.scatter.within, scatter(features[chosen], labels[chosen], part.classes).within)
    assert part.seed == 3


def test_the_classes_that_are_present():
    present = Sample(np.eye(4), np.eye(4), np.array([3, 1, 3, 3])).present
    assert (present.classes.tolist(), present.labels.tolist()) == ([1, 3], [1, 0, 1, 1])


def test_zero_shot_probabilities():
    generator = np.random.default_rng(9)
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (generator.standard_normal((n, 6)) for n in (50, 4)))
    scores = np.exp(30 * images @ texts.T)
    got = Sample(images, texts, logit_scale=30.0).zero_shot_probabilities
    np.testing.assert_allclose(got, scores / scores.sum(axis=1, keepdims=True), rtol=1e-12)
    with pytest.raises(MetricError, match="length 2; every row must be a unit vector"):
        _ = Sample(2 * images, texts).zero_shot_probabilities


def test_what_a_sample_is_asked_for_but_lacks():
    with pytest.raises(MetricError, match="needs the labels"):
        _ = Sample(np.eye(2)).scatter
    with pytest.raises(MetricError, match="needs text embeddings"):
        _ = Sample(np.eye(2)).statistics
    with pytest.raises(MetricError, match="2 dimensions but text_embeddings 3"):
        Sample(np.eye(2), np.eye(3))
    with pytest.raises(MetricError, match=r"The label 2 of image 1 is not in 0\.\.1"):
        Sample(np.eye(2), np.eye(2), np.array([0, 2]))
