"""Few-shot draws: Dassl's, number for number, and those that depend on nothing but the class's own images."""

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from datasets.few_shot import ORDERS, few_shot, few_shot_draws, few_shot_with_validation
from datasets.registry import load_task
from datasets.samples import RawSamples, Subset
from datasets.task import Task

LABELS = st.lists(st.integers(0, 3), max_size=40).map(lambda drawn: [*drawn, 0, 1, 2, 3])  # every class has an image


def make_task(labels, split="train"):
    pixels = np.zeros((len(labels), 1, 1), dtype=np.uint8)
    names = tuple(f"class {c}" for c in range(max(labels) + 1))
    return Task("Dots", split, RawSamples(pixels, split), np.array(labels, dtype=np.int64), names, ("a {c}",))


def dassl(requests, seed, repeat=False):
    """The ids that Dassl draws: its steps, one by one, with the global generator."""
    before = random.getstate()
    random.seed(seed)
    drawn = []
    for task, shots in requests:
        tracker = defaultdict(list)
        for item, label in zip(task.sample_ids, task.labels.tolist(), strict=True):
            tracker[label].append(item)
        dataset = []
        for items in tracker.values():
            if len(items) >= shots:
                sampled = random.sample(items, shots)
            elif repeat:
                sampled = random.choices(items, k=shots)
            else:
                sampled = items
            dataset.extend(sampled)
        drawn.append(dataset)
    random.setstate(before)
    return drawn


def ids_of_class(task, label):
    return [name for name, own in zip(task.sample_ids, task.labels.tolist(), strict=True) if own == label]


@given(labels=LABELS, val_labels=LABELS, shots=st.integers(1, 20), seed=st.integers(0, 5), repeat=st.booleans())
@settings(max_examples=60, deadline=None)
def test_legacy_is_dassl_s_draw(labels, val_labels, shots, seed, repeat):
    train, val = make_task(labels), make_task(val_labels, "val")
    drawn = few_shot_with_validation(train, val, shots, seed, order="legacy", repeat=repeat)
    assert [task.sample_ids for task in drawn] == dassl([(train, shots), (val, min(shots, 4))], seed, repeat)
    assert [task.split for task in drawn] == ["train", "val"]
    alone = few_shot(train, shots, seed, order="legacy", repeat=repeat)
    assert alone.sample_ids == drawn[0].sample_ids


def test_legacy_draws_of_all_shots_share_a_stream():
    train = make_task([c for c in range(5) for _ in range(30)])
    wanted = [(train, shots) for shots in (1, 2, 4, 8, 16)]
    drawn = few_shot_draws(wanted, 1, order="legacy")
    assert [task.sample_ids for task in drawn] == dassl(wanted, 1)
    assert few_shot(train, 2, 1, order="legacy").sample_ids != drawn[1].sample_ids


def test_legacy_numbers_are_those_of_every_python():
    """Golden: after random.seed(1), random.sample(range(10), 2) is [2, 1] for class 1, which comes first, then [4, 1]."""
    task = make_task([1, 0] * 10)
    assert few_shot(task, 2, 1, order="legacy").sample_ids == ["train-000004", "train-000002", "train-000009", "train-000003"]


def test_independent_ranks_are_those_of_sha256():
    """Golden: the ids of each class sorted by what ``printf '1 train-000009' | sha256sum`` and so on print."""
    task = make_task([1, 0] * 10)
    assert few_shot(task, 2, 1).sample_ids == ["train-000009", "train-000007", "train-000012", "train-000002"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_global_generator_is_neither_read_nor_moved(order):
    task = make_task([0, 1] * 20)
    random.seed(11)
    first, state = few_shot(task, 3, 5, order=order).sample_ids, random.getstate()
    random.seed(12)
    assert few_shot(task, 3, 5, order=order).sample_ids == first
    random.seed(11)
    assert random.getstate() == state


@pytest.mark.parametrize("order", ORDERS)
@given(labels=LABELS, shots=st.integers(1, 20), seed=st.integers(0, 5), repeat=st.booleans())
@settings(max_examples=40, deadline=None)
def test_each_class_gives_its_shots(order, labels, shots, seed, repeat):
    task = make_task(labels)
    drawn = few_shot(task, shots, seed, order=order, repeat=repeat)
    for label in range(4):
        own, got = ids_of_class(task, label), ids_of_class(drawn, label)
        assert len(got) == (shots if repeat else min(shots, len(own)))
        assert set(got) <= set(own)
        assert len(set(got)) == len(got) or (repeat and len(own) < shots)


@given(labels=LABELS, fewer=st.integers(1, 10), more=st.integers(0, 10), seed=st.integers(0, 5), repeat=st.booleans())
@settings(max_examples=40, deadline=None)
def test_independent_draws_are_nested(labels, fewer, more, seed, repeat):
    task = make_task(labels)
    small, large = (few_shot(task, shots, seed, repeat=repeat) for shots in (fewer, fewer + more))
    for label in range(4):
        inner, outer = ids_of_class(small, label), ids_of_class(large, label)
        assert outer[: len(inner)] == inner


@given(labels=LABELS, others=LABELS, shots=st.integers(1, 10), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_independent_draw_of_a_class_does_not_depend_on_the_others(labels, others, shots, seed):
    task = make_task(labels)
    kept = [row for row, label in enumerate(labels) if label == 2]
    rest = [other if other != 2 else 1 for other in others]  # other images, of other classes, under other ids
    pixels = RawSamples(np.zeros((1000 + len(rest), 1, 1), dtype=np.uint8), "train")
    places = np.array([1000 + i for i in range(len(rest))] + kept, dtype=np.int64)
    changed = Task("Dots", "train", Subset(pixels, places), np.array([*rest, *[2] * len(kept)]), task.classnames, task.templates)
    assert ids_of_class(few_shot(task, shots, seed), 2) == ids_of_class(few_shot(changed, shots, seed), 2)


@given(labels=LABELS, shots=st.integers(1, 10), seed=st.integers(0, 5), shuffled=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_independent_draw_does_not_depend_on_the_order_of_the_images(labels, shots, seed, shuffled):
    task = make_task(labels)
    order = list(range(len(labels)))
    shuffled.shuffle(order)
    again = few_shot(task.subset(np.array(order)), shots, seed)
    drawn = few_shot(task, shots, seed)
    assert again.sample_ids == drawn.sample_ids
    assert again.fingerprint == drawn.fingerprint
    assert again.labels.tolist() == sorted(again.labels.tolist())


def test_independent_draws_do_not_depend_on_what_was_drawn_before():
    train, val = make_task([0, 1] * 30), make_task([1, 0] * 30, "val")
    together = few_shot_with_validation(train, val, 16, 3)
    assert together[0].sample_ids == few_shot(train, 16, 3).sample_ids
    assert together[1].sample_ids == few_shot(val, 4, 3).sample_ids


@pytest.mark.parametrize("order", ORDERS)
def test_seeds_draw_differently_and_evenly(order):
    task = make_task([0] * 20)
    seen = [few_shot(task, 5, seed, order=order).sample_ids for seed in range(400)]
    counts = np.array([sum(name in drawn for drawn in seen) for name in task.sample_ids])
    assert len({tuple(drawn) for drawn in seen}) > 395
    assert counts.sum() == 2000
    assert (abs(counts - 100) < 5 * np.sqrt(75)).all()  # five standard deviations of a binomial with n = 400, p = 1/4


def test_a_draw_is_a_task():
    drawn = few_shot(load_task("Digits", "train"), 2, 0)
    assert len(drawn) == 20
    assert drawn.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert (drawn.name, drawn.split, len(drawn.classnames)) == ("Digits", "train", 10)
    assert drawn.samples.image(19).size == (8, 8)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots_are_refused(order, shots):
    with pytest.raises(UserError, match=f"number of shots must be at least 1, not {shots}"):
        few_shot(make_task([0, 1]), shots, 0, order=order)


@pytest.mark.parametrize("order", ORDERS)
def test_a_class_without_images_is_refused(order):
    with pytest.raises(UserError, match="Dots has no train image of the class 'class 1'"):
        few_shot(make_task([0, 2]), 1, 0, order=order)


def test_unknown_order():
    with pytest.raises(UserError, match="Unknown order of few-shot draws 'legasy'; did you mean 'legacy'"):
        few_shot(make_task([0, 1]), 1, 0, order="legasy")
