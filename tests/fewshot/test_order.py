"""Batches for adapters: every image at most once in a step, the same for any number of processes, from any step on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from fewshot.order import ClassBatches, Order, WholeBatches


def epoch(order: Order, number: int, first: int = 0) -> list[list[int]]:
    order.set(number, first)
    batches = list(order)
    assert len(batches) == len(order)
    return batches


@given(n=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(0, 5))
def test_whole_batches_have_each_image_once_but_for_the_rest(n: int, size: int, seed: int) -> None:
    order = WholeBatches(n, size, seed=seed)
    batches = epoch(order, 1)
    images = [image for batch in batches for image in batch]
    assert len(batches) == order.steps == max(1, n // size)
    assert {len(batch) for batch in batches} == {min(n, size)} == {order.images(0)}
    assert len(set(images)) == len(images) == min(n, order.steps * size)


@pytest.mark.parametrize("make", [lambda *who: WholeBatches(50, 7, *who), lambda *who: ClassBatches(np.arange(50) % 6, 9, 3, *who)])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_steps_of_one(make, world: int) -> None:
    alone = epoch(make(0, 1), 2)
    shares = [epoch(make(rank, world), 2) for rank in range(world)]
    for step, batch in enumerate(alone):
        assert sorted(image for share in shares for image in share[step]) == sorted(batch)
        assert all(share[step] == batch[rank::world] for rank, share in enumerate(shares))


@pytest.mark.parametrize("order", [WholeBatches(40, 6), ClassBatches(np.arange(40) % 4, 8)], ids=["whole", "classes"])
def test_an_epoch_may_begin_anywhere_and_differs_from_others(order: Order) -> None:
    whole = epoch(order, 3)
    assert epoch(order, 3, first=2) == whole[2:]
    assert epoch(order, 4) != whole


@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=8), size=st.integers(4, 30), per_class=st.integers(2, 6))
def test_steps_of_classes_have_pairs_of_both_kinds(counts: list[int], size: int, per_class: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    usable = sum(count >= 2 for count in counts)
    if usable < 2 or per_class > size // 2:
        with pytest.raises(UserError):
            ClassBatches(labels, size, per_class)
        return
    order = ClassBatches(labels, size, per_class)
    batches = epoch(order, 0)
    assert len(batches) == max(1, len(labels) // size)
    for step, batch in enumerate(batches):
        _, found = np.unique(labels[batch], return_counts=True)
        assert len(found) == min(usable, size // per_class) and found.min() >= 2
        assert len(set(batch)) == len(batch) == order.images(step) <= size


def test_few_classes_give_more_images_each_and_a_small_class_all_it_has() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    (batch,) = epoch(ClassBatches(labels, 23, 4), 0)
    assert np.bincount(labels[batch]).tolist() == [11, 3]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WholeBatches(10, 2, 0, 3), "A step of 2 images cannot be shared by 3 processes"),
        (lambda: ClassBatches(np.array([0, 0, 1]), 4, 2), "two classes with two images each"),
        (lambda: ClassBatches(np.arange(8) % 2, 4, 3), "--images-per-class 3 does not lie between 2 and half of --batch-size 4"),
        (lambda: ClassBatches(np.arange(8) % 2, 4, 1), "--images-per-class 1"),
    ],
    ids=["processes", "classes", "room", "pairs"],
)
def test_what_cannot_be_is_told(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
