"""The split of own data that lie in one list: by what the list says of each image, or else by a division of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.own.imagefolder import SPLIT_FOLDERS, divide
from datasets.task import Task, split_validation

SPLIT_NAMES = SPLIT_FOLDERS | {"dev": "val"}


def split_of(whole: Task, said: NDArray[np.object_] | None, split: str, val_p: float) -> Task:
    """The split ``train``, ``val`` or ``test`` of ``whole``; ``said`` has the split of every image.

    Without that, a fifth of each class is the test split (:func:`~datasets.own.imagefolder.divide`, by the sample ids).
    Without a validation split, it is drawn from the training split.
    """
    splits = _divided(whole) if said is None else said
    if split == "test" or (splits == "val").any():
        return _part(whole, splits, split)
    train, val = split_validation(_part(whole, splits, "train"), val_p)
    return val if split == "val" else train


def _part(whole: Task, splits: NDArray[np.object_], split: str) -> Task:
    rows = np.flatnonzero(splits == split)
    if not len(rows):
        raise UserError(f"{whole.name} has no images of the split '{split}'; it has: {', '.join(sorted(set(splits.tolist())))}.")
    return whole.subset(rows, split)


def _divided(whole: Task) -> NDArray[np.object_]:
    splits = np.full(len(whole), "train", dtype=object)
    for label in range(len(whole.classnames)):
        rows = np.flatnonzero(whole.labels == label)
        ids = [whole.samples.sample_id(row).encode() for row in rows.tolist()]
        test = set(divide(ids, "test"))
        splits[rows[[name in test for name in ids]]] = "test"
    return splits


def known_split(text: str) -> str | None:
    """``val`` of ``Validation``; None for what is no split."""
    return SPLIT_NAMES.get(text.strip().lower())
