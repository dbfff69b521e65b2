"""Second moments of images by class, in torch, updated by batch and merged over processes without loss of digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.scatter import Scatter, Squares


@dataclass(frozen=True)
class Layout:
    """What is kept of C classes in D dimensions: squares, and ``matrices`` scatters: 0, 1 of all classes together, or C."""

    classes: int
    dimensions: int
    matrices: int

    @property
    def sizes(self) -> list[int]:
        """How many numbers each part of :class:`Moments` has."""
        rows = self.classes * self.dimensions
        return [self.classes, rows, rows, self.matrices * self.dimensions**2]

    def zeros(self) -> Tensor:
        """The moments of no image, as one flat tensor."""
        return torch.zeros(sum(self.sizes), dtype=torch.float64)

    def merged(self, stacked: Tensor) -> Tensor:
        """The moments [L] of the images of all processes, from theirs [processes, L]."""
        flat = stacked[0].clone()
        for other in stacked[1:]:
            Moments.of(flat, self).merge(Moments.of(other, self))
        return flat


@dataclass(frozen=True)
class Moments:
    """``counts`` [C], ``means`` [C, D], ``squares`` [C, D] about the means, and the scatters ``within`` classes [matrices, D, D].

    All are views of one flat float64 tensor, so that a framework which knows tensors only can merge them together.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor
    within: Tensor

    @classmethod
    def of(cls, flat: Tensor, layout: Layout) -> Moments:
        """The views; what is written to them is written to ``flat``."""
        counts, means, squares, within = flat.split(layout.sizes)
        shape = layout.classes, layout.dimensions
        return cls(counts, means.view(shape), squares.view(shape), within.view(layout.matrices, *shape[1:], *shape[1:]))

    @property
    def by_class(self) -> bool:
        """Whether the scatter of each class is kept by itself."""
        return len(self.within) > 1

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Add rows [B, D] with labels [B], in place.

        By sum_i (x_i - old mean) (x_i - new mean)^T, which is what the scatter of a class grows by (Welford 1962), so nothing is
        squared before a mean is taken off. A class without images so far takes its new mean for the old one too.
        """
        old, known = self.means[labels], self.counts[labels, None] > 0
        self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))
        self.means.index_add_(0, labels, (rows - old) / self.counts[labels, None])
        from_new = rows - self.means[labels]
        from_old = torch.where(known, rows - old, from_new)
        self.squares.index_add_(0, labels, from_old * from_new)
        if self.by_class:
            for label in labels.unique().tolist():
                chosen = labels == label
                self.within[label] += from_old[chosen].T @ from_new[chosen]
        elif len(self.within):
            self.within[0] += from_old.T @ from_new

    def merge(self, other: Moments) -> None:
        """Add the images of ``other``, in place (Chan, Golub, LeVeque 1979)."""
        counts = self.counts + other.counts
        share = other.counts / counts.clamp(min=1)
        step = other.means - self.means
        moved = (self.counts * share).sqrt()[:, None] * step
        self.squares.add_(other.squares).add_(moved.square())
        self.within.add_(other.within)
        if self.by_class:
            self.within.addcmul_(moved[:, :, None], moved[:, None, :])
        elif len(self.within):
            self.within[0] += moved.T @ moved
        self.means.add_(share[:, None] * step)
        self.counts.copy_(counts)

    def squares_for_numpy(self) -> Squares:
        """What the measures of squares are computed from."""
        return Squares(self._counts(), self.means.cpu().numpy(), self.squares.cpu().numpy())

    def scatter_for_numpy(self) -> Scatter:
        """What the measures of the scatter are computed from."""
        return Scatter(self._counts(), self.means.cpu().numpy(), self.scatters_for_numpy().sum(axis=0))

    def scatters_for_numpy(self) -> NDArray[np.float64]:
        """The scatters, symmetric: the two factors in :meth:`add` differ, so their rounding is not."""
        return np.asarray(((self.within + self.within.mT) / 2).cpu().numpy())

    def _counts(self) -> NDArray[np.int64]:
        return self.counts.cpu().numpy().astype(np.int64)
