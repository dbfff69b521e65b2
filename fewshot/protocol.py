"""Which images a few-shot classifier learns from, and on which its hyper-parameters are chosen. Never on those it is tested on.

``min``     CoOp's protocol: min(shots, 4) images of each class of the validation split
``full``    the whole validation split, as the released code of the overlap correction does
a number    so many images of each class of the validation split

Some data sets have no validation images but those of the test: of ImageNet as CoOp divides it, both splits are the same files.
There, min(shots, 4) further images of each class of the training split are held out, whatever was asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.few_shot import VALIDATION_SHOTS, few_shot, few_shot_draws, few_shot_with_validation
from datasets.task import Task

RELEASED_SHOTS = (1, 2, 4, 8, 16)
HELD_OUT = "held out of the training split, since the validation images are those of the test"


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set; ``val`` is None where it would be the test's images."""

    train: Task
    val: Task | None
    test: Task

    @classmethod
    def of(cls, train: Task, val: Task, test: Task) -> Splits:
        """The splits, without a validation split that is the test split under another name."""
        same = len(val) == len(test) and val.listing == test.listing and val.fingerprint == test.fingerprint
        return cls(train, None if same else val, test)

    def split(self, name: str) -> Task:
        """``train`` or ``val``, where there is one: what the images of a draw are of."""
        task = self.train if name == "train" else self.val
        if task is None:
            raise ValueError("the data set has no validation split of its own")
        return task


@dataclass(frozen=True)
class Draw:
    """``cache`` and ``val`` int64: rows of the training split, and of the split that :attr:`val_split` names."""

    shots: int
    seed: int
    cache: NDArray[np.int64]
    val: NDArray[np.int64]
    val_split: str


def validation_shots(text: str) -> str | int:
    """``min``, ``full`` or a number of at least 1: the type of ``--val-shots``."""
    if text in ("min", "full"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither min nor full nor a whole number of at least 1")
    return int(text)


def draw_all(splits: Splits, shots: Sequence[int], seed: int, order: str, val_shots: str | int) -> list[Draw]:
    """The draws of one seed for each of ``shots``; ``order`` as :mod:`datasets.few_shot` has it.

    ``legacy`` draws of the whole protocol come from one stream, through 1, 2, 4, 8 and 16 shots, as the released code of the overlap
    correction draws them with ``full`` validation; with ``min``, each number of shots has a stream of its own that draws the
    training images, then the validation images, as CoOp does. Raises :class:`UserError` where a class has too few images.
    """
    caches = _caches(splits, shots, seed, order, val_shots)
    return [
        Draw(count, seed, cache, *_validation(splits, cache, count, seed, order, val_shots))
        for count, cache in zip(shots, caches, strict=True)
    ]


def _caches(splits: Splits, shots: Sequence[int], seed: int, order: str, val_shots: str | int) -> list[NDArray[np.int64]]:
    if order == "legacy" and val_shots == "full":
        for count in shots:
            if count not in RELEASED_SHOTS:
                known = ", ".join(map(str, RELEASED_SHOTS))
                raise UserError(f"--order legacy draws {known} shots one after another, so there are none for {count}; use independent.")
        drawn = few_shot_draws([(splits.train, count) for count in RELEASED_SHOTS], seed, order=order)
        rows = {count: rows_of(task) for count, task in zip(RELEASED_SHOTS, drawn, strict=True)}
        return [rows[count] for count in shots]
    return [rows_of(few_shot(splits.train, count, seed, order=order)) for count in shots]


def _validation(
    splits: Splits, cache: NDArray[np.int64], shots: int, seed: int, order: str, val_shots: str | int
) -> tuple[NDArray[np.int64], str]:
    """The rows to validate on, and the split that they are of."""
    if splits.val is None:
        return _held_out(splits.train, cache, min(shots, VALIDATION_SHOTS), seed), "train"
    if val_shots == "full":
        return np.arange(len(splits.val)), "val"
    val = _without_empty_classes(splits.val)
    if order == "legacy" and val_shots == "min":
        return rows_of(few_shot_with_validation(splits.train, val, shots, seed, order=order)[1]), "val"
    count = min(shots, VALIDATION_SHOTS) if val_shots == "min" else int(val_shots)
    return rows_of(few_shot(val, count, seed, order=order)), "val"


def _held_out(train: Task, cache: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """``shots`` images of each class that are not in the cache; a class all of whose images are in it has none."""
    rest = np.setdiff1d(np.arange(len(train)), cache)
    if not len(rest):
        raise UserError(f"{train.name} has no training image beside the shots to choose hyper-parameters on; use fewer --shots.")
    some = _without_empty_classes(train.subset(rest))
    return rest[rows_of(few_shot(some, shots, seed))]


def _without_empty_classes(task: Task) -> Task:
    """The task with only the classes that have images: a small validation split may lack some."""
    present, labels = np.unique(task.labels, return_inverse=True)
    return replace(task, labels=labels.astype(np.int64), classnames=tuple(task.classnames[index] for index in present))


def rows_of(drawn: Task) -> NDArray[np.int64]:
    """Where the images of a drawn task are in the split that it was drawn from."""
    return drawn.samples.indices  # type: ignore[attr-defined,no-any-return]  # a draw is a subset
