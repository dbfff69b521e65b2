"""Collections: images or texts with ids, and their fingerprint."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import UserError
from datasets.registry import load_task
from datasets.retrieval.collection import UNLABELLED, Collection, Texts
from datasets.retrieval.task import RetrievalTask, by_label

CATS = Collection.of_texts(["a cat", "a dog", "a cat"], ["x", "y", "z"], [0, 1, 0])


def changed(texts=("a cat", "a dog", "a cat"), ids=("x", "y", "z"), labels=(0, 1, 0)):
    return Collection.of_texts(texts, ids, labels)


@pytest.mark.parametrize(
    "other",
    [
        changed(texts=("a cat", "a dog.", "a cat")),
        changed(ids=("x", "y", "w")),
        changed(labels=(0, 1, 1)),
        changed(labels=None),
        changed(texts=("a dog", "a cat", "a cat"), ids=("y", "x", "z"), labels=(1, 0, 0)),
        changed(texts=("a cat", "a dog"), ids=("x", "y"), labels=(0, 1)),
        changed(texts=("a", "cata dog", "a cat")),
    ],
    ids=["text", "id", "label", "no labels", "order", "length", "borders"],
)
def test_fingerprint_changes_with(other):
    assert other.fingerprint != CATS.fingerprint


def test_fingerprint_changes_with_nothing_else():
    assert changed().fingerprint == CATS.fingerprint
    assert replace(CATS, classnames=("cat", "dog")).fingerprint == CATS.fingerprint


def test_a_digest_of_every_item():
    images = Collection.of_task(load_task("Digits", "test"))
    assert images.digests.shape == (len(images), 32)
    assert images.digests[4].tobytes() == images.items.digest(4)
    assert CATS.digests[0].tobytes() == CATS.items.digest(0)
    assert Collection.of_texts([], []).digests.shape == (0, 32)


def test_images_of_a_task_keep_its_fingerprint():
    task = load_task("Digits", "test").subset(np.arange(7))
    images = Collection.of_task(task)
    assert images.modality == "image"
    assert images.fingerprint == task.fingerprint == images.as_task("Digits", "test").fingerprint
    assert images.ids == task.sample_ids
    unlabelled = Collection(task.samples)
    again = unlabelled.as_task("Digits", "test")
    assert again.fingerprint == unlabelled.fingerprint != images.fingerprint
    assert set(again.labels.tolist()) == {UNLABELLED}


def test_texts_are_no_images_and_the_reverse():
    assert CATS.modality == "text" and CATS.texts == ("a cat", "a dog", "a cat") and CATS.ids == ["x", "y", "z"]
    with pytest.raises(ValueError, match="no images"):
        CATS.as_task("cats", "test")
    with pytest.raises(ValueError, match="no texts"):
        _ = Collection.of_task(load_task("Digits", "test")).texts


def test_what_does_not_fit_together():
    with pytest.raises(ValueError, match="1 texts but 2 ids"):
        Texts(("a",), ("x", "y"))
    with pytest.raises(ValueError, match="3 items but 2 labels"):
        changed(labels=(0, 1))
    with pytest.raises(ValueError, match="0 or larger"):
        changed(labels=(0, -1, 0))
    with pytest.raises(ValueError, match="need labels"):
        by_label("cats", "test", CATS, changed(labels=None))
    with pytest.raises(ValueError, match="3 queries, 3 judged, 2 in the gallery"):
        replace(by_label("cats", "test", CATS, CATS), gallery=changed(("a", "b"), ("x", "y"), (0, 1)))


def test_an_id_may_not_come_twice():
    with pytest.raises(UserError, match="The gallery of cats, split test, hold 'x' twice"):
        by_label("cats", "test", CATS, changed(ids=("x", "y", "x")))


def test_nothing_to_find_or_to_find_it_by():
    with pytest.raises(UserError, match="The queries of cats, split test, are empty"):
        by_label("cats", "test", changed((), (), ()), CATS)


def test_a_task_s_fingerprint_knows_what_is_relevant():
    task = by_label("cats", "test", CATS, changed())
    assert not task.leave_one_out
    assert task.fingerprint == by_label("dogs", "train", changed(), changed()).fingerprint
    others = [
        by_label("cats", "test", CATS, CATS),
        RetrievalTask("cats", "test", CATS, changed(), {"other": task.protocols[""]}),
        RetrievalTask("cats", "test", CATS, changed(), {"": replace(task.protocols[""], junk=task.protocols[""].positives)}),
    ]
    assert len({task.fingerprint, *(other.fingerprint for other in others)}) == 4
