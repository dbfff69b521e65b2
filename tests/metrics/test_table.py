"""What holds for every measure of the METRICS table, driven by what the table says of it."""

import contextlib
import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ortho_group

import metrics
from metrics.metric import CLASS_ORDER, DUPLICATION, EMPTY_CLASS, GEOMETRY, IMAGE_ORDER, ROTATION, SEPARATE_ROTATION
from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.table import BY_ANY_NAME, METRICS
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
    return images, np.concatenate([texts, pairs.unit(texts[:1] + texts[1:2])]), labels


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
    unchanged = []
    for seed in range(SEED, SEED + 5):
        instance = pairs.random_instance(seed)
        before, after = metric(*instance), metric(*CHANGES[change](*instance))
        unchanged.append(abs(after - before) < 1e-11 * max(abs(before), 0.01))
    assert all(unchanged) == (change in metric.invariances)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_depends_on_exactly_the_inputs_that_it_declares(metric):
    moved = {"images": set(), "texts": set(), "labels": set()}
    for seed in range(SEED, SEED + 5):
        images, texts, labels = pairs.random_instance(seed, images=60)
        before = pytest.approx(metric(images, texts, labels), abs=1e-9)
        moved["images"].add(metric(images[:40], texts, labels[:40]) != before)
        moved["texts"].add(metric(images, pairs.unit(texts**3), labels) != before)
        moved["labels"].add(metric(images[::-1], texts, labels) != before)
    needs = {"images": metric.needs_images, "texts": metric.needs_text, "labels": metric.needs_labels}
    assert {name: True in of for name, of in moved.items()} == needs
    before = metric(images, texts, labels)
    unneeded = [value if needed else None for value, needed in ((images, metric.needs_images), (texts, metric.needs_text))]
    assert metric(*unneeded, labels if metric.needs_labels else None) == before


def shared_by(sample):
    """Everything that measures share and that can be merged."""
    return {"image_sums": sample.image_sums, "scatter": sample.scatter, "squares": sample.squares}


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_shards_in_any_order_add_up_to_the_whole(metric, shards):
    images, texts, labels = pairs.random_instance(SEED)
    parts = [Sample(images[part], texts, labels[part]) for part in np.array_split(np.arange(len(images)), shards)]
    first, *others = reversed([shared_by(part) for part in parts])
    for part in others:
        first = {name: first[name] + part[name] for name in first}
    merged = Sample(images, texts, labels)
    vars(merged).update(first)  # as if they had been computed from the whole
    assert metric.from_sample(merged) == pytest.approx(metric(images, texts, labels), rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_what_was_measured_before_changes_nothing(metric):
    instance = pairs.random_instance(SEED)
    sample = Sample(*instance)
    for other in METRICS.values():
        other.score(sample)
    assert metric.from_sample(sample) == metric.from_sample(Sample(*instance)) == pytest.approx(metric(*instance), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_as_released_where_there_is_another_number_and_says_what_differs(metric):
    sample = Sample(*pairs.random_instance(SEED))
    assert (metric.as_released is None) == (metric.released_note == "")
    assert metric.variant(True) == ("definition" if metric.as_released is None else "as released")
    assert metric.variant(False) == "definition"
    assert metric.score(sample) == metric.from_sample(sample)
    assert metric.score(sample, as_released=True) == (metric.as_released or metric.from_sample)(sample)


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


def extremes():
    """All on one point; images opposite to texts; each class a direction of its own, exactly and nearly."""
    point, labels = np.tile([[0.6, 0.8]], (4, 1)), np.array([0, 1, 2, 3])
    yield point, point, labels
    yield point, -point, labels
    yield point, point, labels // 2
    labels = np.repeat([0, 1, 2, 3], 12)
    directions = np.concatenate([np.eye(4)[:2], -np.eye(4)[:2]])  # with a mean of zero
    yield directions[labels], directions, labels
    nearly = directions[labels] + 1e-3 * np.random.default_rng(SEED).standard_normal((48, 4))
    yield pairs.unit(nearly), directions, labels
    mixed = pairs.unit(np.random.default_rng(SEED).standard_normal((24, 4)))
    yield np.repeat(mixed, 2, axis=0), np.eye(4)[:2], np.tile([0, 1], 24)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_stays_in_its_range(metric):
    low, high = metric.range
    values = []
    for instance in [*extremes(), *(pairs.random_instance(seed, dimensions=3) for seed in range(20))]:
        with contextlib.suppress(MetricError):  # some extremes are beyond what some measures are defined for
            values.append(metric(*instance))
    assert len(values) >= 20
    assert min(values) >= low - 1e-12
    assert max(values) <= high + 1e-12
    if metric.family == GEOMETRY and np.isfinite(high):
        assert any(abs(value - high) < 1e-12 for value in values)  # the upper end is attained, so the range is not a loose one


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_needs_just_as_many_images_as_it_declares(metric):
    images, texts, _ = pairs.random_instance(SEED, images=8, classes=4)
    labels, enough = np.array([0, 1, 0, 1, 2, 3, 2, 3]), max(1, metric.min_images)
    of = labels if metric.min_classes > 1 else np.zeros_like(labels)  # as few classes as it needs
    assert np.isfinite(metric(images[:enough], texts, of[:enough]))
    if metric.min_images > 0:
        few = metric.min_images - 1
        with pytest.raises(MetricError, match=f"{metric.name} is undefined"):
            metric(images[:few], texts, labels[:few])


@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if metric.min_classes > 1], ids=lambda metric: metric.name)
def test_needs_just_as_many_classes_as_it_declares(metric):
    images, texts, _ = pairs.random_instance(SEED, images=8, classes=4)
    assert np.isfinite(metric(images, texts[:2], np.arange(8) % 2))
    with pytest.raises(MetricError, match=f"{metric.name} is undefined"):
        metric(images, texts[:1], np.zeros(8, int))


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


MODULES = [importlib.import_module(f"metrics.{path.stem}") for path in sorted(Path(metrics.__file__).parent.glob("[!_]*.py"))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_measure_has_an_example(metric):
    assert ">>>" in metric.function.__doc__
