"""The features that the draws of one data set need, shared by all of them: of its test and validation images, and of the shots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.naming import parse_name
from datasets.task import Task
from fewshot.data import Features, FewShotData
from fewshot.features import Towers
from fewshot.protocol import Draw, Splits

Readable = tuple[Features, NDArray[np.int64]]  # features, and the rows of the split that they are of, ascending


class Material:
    """What :class:`~fewshot.data.FewShotData` of any of ``draws`` is put together from.

    Test and validation images are embedded once for all draws, and the shots of a seed once for all numbers of shots, each as
    the mean of ``views`` augmented ones (0: as they are tested). In a run of several processes, all must ask for the same.
    """

    def __init__(self, towers: Towers, splits: Splits, draws: Sequence[Draw], views: int) -> None:
        self.towers, self.splits, self.draws, self.views = towers, splits, draws, views
        self._keys: dict[int, Readable] = {}
        self._val: dict[str, Readable] = {}

    @cached_property
    def test(self) -> Features:
        """Features of the test images."""
        return self.towers.features(self.splits.test)[0]

    @cached_property
    def classifier(self) -> Tensor:
        """Unit text embeddings [C, D] of the classes."""
        return self.towers.classifier(self.splits.test)

    def prepare(self, draws: Sequence[Draw]) -> None:
        """Make the features that ``draws`` need; afterwards each process may ask for what it likes."""
        for draw in draws:
            self._keys_of(draw.seed)
            self._val_of(draw.val_split)
        _ = self.test, self.classifier

    def data(self, draw: Draw | None) -> FewShotData:
        """All that a method may see of one draw; without a draw, for zero-shot classification, no labelled image."""
        return FewShotData(
            cache=self.test[:0] if draw is None else _picked(self._keys_of(draw.seed), draw.cache),
            val=None if draw is None else _picked(self._val_of(draw.val_split), draw.val),
            test=self.test,
            classifier=self.classifier,
            classnames=self.splits.test.classnames,
            dataset=parse_name(self.splits.test.name).base,
        )

    def _keys_of(self, seed: int) -> Readable:
        """Features of all training images that any draw of ``seed`` has."""
        if seed not in self._keys:
            rows = _union([draw.cache for draw in self.draws if draw.seed == seed])
            self._keys[seed] = self._of_rows(self.splits.train, rows, self.views, seed)
        return self._keys[seed]

    def _val_of(self, split: str) -> Readable:
        """Features of all images that any draw is validated on."""
        if split not in self._val:
            rows = _union([draw.val for draw in self.draws if draw.val_split == split])
            self._val[split] = self._of_rows(self.splits.split(split), rows)
        return self._val[split]

    def _of_rows(self, task: Task, rows: NDArray[np.int64], views: int = 0, seed: int = 0) -> Readable:
        features, indices = self.towers.features(task.subset(rows), views, seed)
        return features, rows[indices]


def _union(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(rows))


def _picked(readable: Readable, wanted: NDArray[np.int64]) -> Features:
    """The features of the rows ``wanted``, in that order, less those that could not be read."""
    features, rows = readable
    places = np.searchsorted(rows, wanted[np.isin(wanted, rows)])
    return features[torch.from_numpy(places).to(features.labels.device)]
