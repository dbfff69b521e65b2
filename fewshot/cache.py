"""The cache of labelled images: similarities of queries to its keys, and sums over the keys of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2_E = 1 / math.log(2)


class Cache:
    """Keys [M, D], unit rows, and their labels [M] in any order; classes may have different numbers of keys, or none.

    Inside, keys come in rounds: the first key of every class, then the second of every class that has two, and so on, where classes
    with more keys come first. So a round is a prefix of the classes, the product with one-hot labels is one addition for each round, and
    nothing is padded. ``order`` [M] tells which key is where.
    """

    def __init__(self, keys: Tensor, labels: Tensor, classes: int) -> None:
        self.classes = classes
        self.sizes = torch.bincount(labels, minlength=classes)
        self.class_place = place = self.sizes.argsort(descending=True, stable=True).argsort()
        by_class = labels.argsort(stable=True)
        first = self.sizes.cumsum(0) - self.sizes
        round_of = torch.arange(len(labels), device=labels.device) - first[labels[by_class]]
        self.order = by_class[(round_of * classes + place[labels[by_class]]).argsort()]
        self.labels = labels[self.order]
        self.keys = keys[self.order]
        self.rounds = torch.bincount(round_of).tolist()  # how many classes have so many keys
        self._balanced = len(set(self.rounds)) == 1

    def __len__(self) -> int:
        """M."""
        return len(self.labels)

    def affinity(self, queries: Tensor) -> Tensor:
        """A = F qᵀ, cosines of the keys to n queries [M, n], keys in the cache's order."""
        return self.keys @ queries.T

    def class_sums(self, values: Tensor) -> Tensor:
        """Vᵀ values: for each class the sum over its keys, [n, C], of ``values`` [M, n] in the cache's order."""
        if not self.rounds:
            return values.new_zeros(self.classes, values.shape[1]).T
        if self._balanced:
            sums = values.view(len(self.rounds), self.rounds[0], -1).sum(dim=0)
        else:
            first, *others = values.split(self.rounds)
            sums = first.clone()
            for part in others:
                sums[: len(part)] += part
        if len(sums) < self.classes:
            sums = torch.cat([sums, sums.new_zeros(self.classes - len(sums), sums.shape[1])])
        return sums.index_select(0, self.class_place).T

    def similarity(self, affinity: Tensor, beta: float, room: Tensor | None = None) -> Tensor:
        """exp(-beta (1 - A)) V, [n, C], of an affinity [M, n]; the values of all keys are written to ``room`` [M, n], if there is one.

        Source: Zhang et al., Tip-Adapter, ECCV 2022 (alpha is not applied here).
        """
        return self.class_sums(sharpened(affinity, beta, room))


def sharpened(affinity: Tensor, beta: float, room: Tensor | None = None) -> Tensor:
    """exp(-beta (1 - A)), elementwise; as a power of 2, which takes a third of the time. ``room`` spares asking for new memory."""
    return torch.sub(affinity, 1, out=room).mul_(beta * LOG2_E).exp2_()
