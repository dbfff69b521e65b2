"""What holds for every measure of the METRICS table, driven by what the table says of it."""

import doctest
import importlib

import numpy as np
import pytest
from scipy.stats import ortho_group

from metrics.statistics import MetricError, statistics
from metrics.table import (
    BY_ANY_NAME,
    CLASS_ORDER,
    DUPLICATION,
    EMPTY_CLASS,
    IMAGE_ORDER,
    METRICS,
    ROTATION,
    SEPARATE_ROTATION,
)
from tests.metrics import pairs

SEED = 11


def permute_images(images, texts, labels):
    order = np.random.default_rng(SEED).permutation(len(images))
    return images[order], texts, labels[order]


def permute_classes(images, texts, labels):
    order = np.random.default_rng(SEED).permutation(len(texts))
    return images, texts[order], np.argsort(order)[labels]


def rotate(images, texts, labels):
    rotation = ortho_group.rvs(images.shape[1], random_state=SEED)
    return images @ rotation, texts @ rotation, labels


def rotate_separately(images, texts, labels):
    one, other = (ortho_group.rvs(images.shape[1], random_state=seed) for seed in (SEED, SEED + 1))
    return images @ one, texts @ other, labels


def duplicate(images, texts, labels):
    return np.repeat(images, 3, axis=0), texts, np.repeat(labels, 3)


def add_empty_class(images, texts, labels):
    return images, np.concatenate([texts, -texts[:1]]), labels


CHANGES = {
    IMAGE_ORDER: permute_images,
    CLASS_ORDER: permute_classes,
    ROTATION: rotate,
    SEPARATE_ROTATION: rotate_separately,
    DUPLICATION: duplicate,
    EMPTY_CLASS: add_empty_class,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_has_exactly_the_invariances_that_it_declares(metric, change):
    instance = pairs.random_instance(SEED)
    before, after = metric(*instance), metric(*CHANGES[change](*instance))
    assert (abs(after - before) < 1e-13) == (change in metric.invariances)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_depends_on_exactly_the_inputs_that_it_declares(metric):
    images, texts, labels = pairs.random_instance(SEED)
    before = metric(images, texts, labels)
    assert (metric(images[::-1], texts, labels) != pytest.approx(before, abs=1e-9)) == metric.needs_labels
    assert (metric(images, -texts, labels) != pytest.approx(before, abs=1e-9)) == (metric.needs_text and metric.name != "text_text")
    assert (metric(images[:20], texts, labels[:20]) != pytest.approx(before, abs=1e-9)) == metric.needs_images
    unneeded = [value if needed else None for value, needed in ((images, metric.needs_images), (texts, metric.needs_text))]
    assert metric(*unneeded, labels if metric.needs_labels else None) == before


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_shards_in_any_order_add_up_to_the_whole(metric, shards):
    images, texts, labels = pairs.random_instance(SEED)
    parts = [statistics(images[part], texts, labels[part]) for part in np.array_split(np.arange(len(images)), shards)]
    first, *others = reversed(parts)
    for part in others:
        first = first + part
    assert metric.from_statistics(first) == pytest.approx(metric(images, texts, labels), abs=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_leaves_its_input_as_it_was(metric, dtype):
    images, texts, labels = pairs.random_instance(SEED)
    inputs = [images.astype(dtype), texts.astype(dtype), labels]
    copies = [value.copy() for value in inputs]
    for value in inputs:
        value.setflags(write=False)
    metric(*inputs)
    assert all(np.array_equal(value, copy) for value, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_is_a_float_and_the_same_every_time(metric):
    instance = pairs.random_instance(SEED)
    assert type(metric(*instance)) is float
    assert metric(*instance) == metric(*instance)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_layout_in_memory_changes_no_digit(metric):
    images, texts, labels = pairs.random_instance(SEED)
    strided = np.repeat(images, 2, axis=1)[:, ::2]
    expected = metric(images, texts, labels)
    assert metric(np.asfortranarray(images), np.asfortranarray(texts), labels) == expected
    assert metric(strided, texts, labels) == expected


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_stays_in_its_range(metric):
    """Random directions, and the two extremes: all on one point, images opposite to texts."""
    low, high = metric.range
    point, labels = np.tile([[0.6, 0.8]], (4, 1)), np.array([0, 1, 2, 3])
    instances = [(point, point, labels), (point, -point, labels), *(pairs.random_instance(seed, dimensions=3) for seed in range(20))]
    values = [metric(*instance) for instance in instances]
    assert min(values) >= low - 1e-12
    assert max(values) <= high + 1e-12
    assert any(abs(value - high) < 1e-12 for value in values)  # the upper end is attained, so the range is not a loose one


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_needs_just_as_many_images_and_classes_as_it_declares(metric):
    images, texts, labels = pairs.random_instance(SEED, images=4, classes=4)
    labels = np.arange(4)
    assert np.isfinite(metric(images[: max(1, metric.min_images)], texts, labels[: max(1, metric.min_images)]))
    if metric.min_images > 0:
        with pytest.raises(MetricError, match=f"{metric.name} is undefined for {metric.min_images - 1} image"):
            metric(images[: metric.min_images - 1], texts, labels[: metric.min_images - 1])
    if metric.min_classes > 1:
        with pytest.raises(MetricError, match=f"{metric.name} is undefined for 1 class text"):
            metric(images, texts[:1], np.zeros(4, int))


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("IIMM", "iimm"),
        ("uniformity_image", "wrong_label"),  # swapped relative to the paper's words: the inter-modal term
        ("inter_images", "image_image"),  # and the intra-modal one
        ("inter_text", "text_text"),
        ("gap", "gap"),
        ("uniformity_text", "uniformity_text"),
        ("cos_sim", "alignment"),
    ],
)
def test_released_names(released, ours):
    assert BY_ANY_NAME[released] is METRICS[ours]
    assert BY_ANY_NAME[ours] is METRICS[ours]


@pytest.mark.parametrize("module", ["statistics", "iimm", "alignment", "text_text", "gap", "uniformity", "table"])
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"metrics.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
