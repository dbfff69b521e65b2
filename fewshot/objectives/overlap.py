"""Adapters trained against the intra-modal overlap itself, which the paper only measures.

The overlap of :mod:`metrics.overlap` is sum_b min(p_b, q_b), p and q the histograms of the cosines of pairs of different classes
and of the same class. As said there, it is twice the error of the best classifier of pairs that sees only the similarity's bin. A
threshold t is such a classifier, so for every edge t of a bin

    overlap <= P(same < t) + P(different >= t)

with equality at the best threshold where p and q cross once. The right side is a sum of steps; with the sigmoid in their place,
of width ``softness``, it becomes

    L(t) = mean_same sigmoid((t - s) / softness) + mean_different sigmoid((s - t) / softness)

The loss is its least value over the bins' edges. Where t is best, L does not change with t, so the gradient is that of L with t held.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.loading import Batch
from engine.runtime import Runtime
from fewshot.objective import Objective, Setting, Step
from fewshot.objectives.overlap_flags import OverlapOptions
from fewshot.order import ClassBatches, Order
from metrics.pair_counts import BINS


class SoftOverlap(Objective):
    """The soft overlap of the adapted images of a step, of which each class has two or more."""

    name = "overlap"
    released_statistics = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # as for the released supervised adapters; this one was not released

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.pairs: OverlapOptions = setting.options or OverlapOptions()

    @property
    def order(self) -> Order:
        """See :class:`Objective`."""
        shape = self.fit.batch_size, self.pairs.images_per_class
        return ClassBatches(self.task.labels, *shape, self.runtime.rank, self.runtime.world, self.runtime.seed)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """See :class:`Objective`."""
        features, labels = of_all_processes(self.runtime, self.features(batch, step), batch.labels)
        with torch.autocast(self.runtime.device.type, enabled=False):
            loss = soft_overlap(features, labels, self.pairs.softness)
        return loss - loss.detach() * (1 - 1 / self.runtime.world)  # each process has the value of the whole, and a part of its gradient

    def settings(self) -> dict[str, Any]:
        """See :class:`Objective`."""
        return asdict(self.pairs)


def soft_overlap(features: Tensor, labels: Tensor, softness: float) -> Tensor:
    """min_t L(t) of the pairs i < j of features [N, D], whatever their lengths, with labels [N]: a scalar; see the module.

    As softness falls to 0 it becomes an upper bound of the overlap of :mod:`metrics.overlap`. Without pairs of both kinds it is 0.
    """
    units = F.normalize(features, dim=-1)
    above = torch.ones(len(labels), len(labels), dtype=torch.bool, device=labels.device).triu(1)
    alike = labels[:, None] == labels
    similarities = units @ units.T
    same, different = similarities[above & alike], similarities[above & ~alike]
    if not len(same) or not len(different):
        return features.sum() * 0
    best = _best_threshold(same.detach(), different.detach(), softness)
    return _errors(same, different, best, softness)


def of_all_processes(runtime: Runtime, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and labels of all processes, with a gradient for those of this one."""
    if runtime.world == 1:
        return features, labels
    owners = runtime.gather_rows(torch.full_like(labels, runtime.rank)).to(labels.device)
    together = runtime.gather_rows(features.detach()).to(features.device)
    together[owners == runtime.rank] = features
    return together, runtime.gather_rows(labels).to(labels.device)


def _errors(same: Tensor, different: Tensor, threshold: Tensor, softness: float) -> Tensor:
    return torch.sigmoid((threshold - same) / softness).mean() + torch.sigmoid((different - threshold) / softness).mean()


def _best_threshold(same: Tensor, different: Tensor, softness: float) -> Tensor:
    """The edge of a bin at which the soft errors are least."""
    edges = torch.linspace(-1, 1, BINS + 1, device=same.device, dtype=same.dtype)
    return edges[torch.stack([_errors(same, different, edge, softness) for edge in edges]).argmin()]
