"""What is refused, one sentence each."""

import warnings

import numpy as np
import pytest

from metrics.alignment import alignment_of
from metrics.gap import gap
from metrics.iimm import iimm, image_image
from metrics.statistics import MetricError, image_sums, statistics
from metrics.text_text import text_text
from metrics.uniformity import uniformity_text
from tests.metrics import pairs


@pytest.fixture
def instance():
    return pairs.random_instance(0)


def refuses(message, function, *inputs):
    with warnings.catch_warnings(), pytest.raises(MetricError, match=message):
        warnings.simplefilter("error")  # the sentence is all that a user sees
        function(*inputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite(instance, value):
    images, texts, labels = instance
    images[17, 3] = value
    refuses("Row 17 of image_embeddings has a value that is not finite", iimm, images, texts, labels)


def test_texts_that_are_not_finite(instance):
    images, texts, labels = instance
    texts[2, 0] = np.nan
    refuses("Row 2 of text_embeddings has a value that is not finite", iimm, images, texts, labels)


@pytest.mark.parametrize("length", [0.0, 0.998, 1.002, 100.0])
def test_rows_that_are_not_unit(instance, length):
    images, texts, labels = instance
    images[5] *= length
    refuses(f"Row 5 of image_embeddings has length {length:g}; every row must be a unit vector", iimm, images, texts, labels)


def test_the_row_is_named_beyond_the_first_block(instance, monkeypatch):
    images, texts, labels = instance
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 16 * 7)
    images[38] *= 2
    refuses("Row 38 of image_embeddings", iimm, images, texts, labels)


def test_rows_unit_to_storage_precision_are_taken(instance):
    images, texts, labels = instance
    assert iimm(images * 1.0005, texts, labels) == pytest.approx(pairs.iimm(images * 1.0005, texts, labels), abs=1e-12)


def test_dimensions_of_two_models(instance):
    images, texts, labels = instance
    refuses("image_embeddings have 16 dimensions but text_embeddings 15", iimm, images, pairs.unit(texts[:, :15]), labels)


@pytest.mark.parametrize("label", [-1, 5])
def test_label_out_of_range(instance, label):
    images, texts, labels = instance
    labels[9] = label
    refuses(f"The label {label} of image 9 is not in 0..4; there are 5 classes", iimm, images, texts, labels)


def test_labels_that_are_not_whole_numbers(instance):
    images, texts, labels = instance
    refuses("labels must be whole numbers, not float64", iimm, images, texts, labels.astype(float))


def test_labels_of_another_length(instance):
    images, texts, labels = instance
    refuses(r"labels must have shape \(40,\)", iimm, images, texts, labels[:-1])


def test_images_that_are_no_matrix(instance):
    images, texts, labels = instance
    refuses("image_embeddings must be a matrix of floats", iimm, images[0], texts, labels)


def test_embeddings_of_integers():
    refuses("text_embeddings must be a matrix of floats, one unit row each, not int64", text_text, np.eye(3, dtype=int))


def test_one_image():
    refuses("image_image is undefined for 1 image; it needs at least 2", image_image, [[1.0, 0.0]])


def test_no_image(instance):
    images, texts, labels = instance
    refuses("iimm is undefined for 0 images; it needs at least 2", iimm, images[:0], texts, labels[:0])


def test_one_class(instance):
    images, texts, labels = instance
    refuses("iimm is undefined for 1 class text; it needs at least 2", iimm, images, texts[:1], np.zeros_like(labels))


def test_no_class(instance):
    images, texts, _ = instance
    refuses("gap is undefined for 0 class texts", gap, images, texts[:0])


def test_uniformity_text_when_all_images_are_of_one_class(instance):
    images, texts, labels = instance
    refuses(r"undefined when all images are of one class \(3\)", uniformity_text, images, texts, np.full_like(labels, 3))


def test_statistics_without_labels_where_labels_are_needed(instance):
    images, texts, _ = instance
    refuses("needs the labels", alignment_of, statistics(images, texts))


def test_shards_of_different_classes(instance):
    images, _, labels = instance
    refuses("shards need the same classes", lambda: image_sums(images, labels, 5) + image_sums(images, labels, 6))


def test_shards_with_different_texts(instance):
    images, texts, labels = instance
    refuses("different text embeddings", lambda: statistics(images, texts, labels) + statistics(images, -texts, labels))
