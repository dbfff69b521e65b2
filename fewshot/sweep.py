"""For which alphas an image is classified correctly: all of them at once, instead of a grid.

Logits are affine in alpha, z + alpha l. With label y, n_c = z_y - z_c and d_c = l_c - l_y, the image is classified correctly
while alpha d_c < n_c for every other class c: between the greatest n_c / d_c of classes with d_c < 0 and the least of classes with
d_c > 0. So one pass over the logits tells the accuracy for all real alphas, and so do the points of a grid for which it is sorted in.

Computed logits are rounded, and where two of them tie, argmax takes the first class. Both matter only within rounding of an end of
the interval. So each image has two intervals: in one it is certainly classified correctly in float32, outside the other certainly
not. Grid points between the two, one in a hundred images, are evaluated plainly: counts are those of evaluating every point.
This holds for alphas of at least 0, with which rounding grows.

Most images have no end in the range of alphas that is searched, and are left out before intervals are sought (:class:`Slope`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 2.0**-20  # of the image's greatest logit: 16 units in the last place, above all roundings of two logits and of their quotient
INFINITE = 1e30  # stands for infinity, which times 0 were no number
TINY = 1e-24  # greatest logit of an image whose logits are all 0, lest their tie at alpha 0 counts as certain
PAIRS = 2**22  # numbers gathered at once for plain evaluation
_ONE = torch.ones(())

Interval = tuple[Tensor, Tensor]  # least and greatest alpha of each image, [n] each; empty where the first is not below the second


class Best(NamedTuple):
    """The alpha at which most images are classified correctly, and how many; the ends of the interval that it is in the middle of."""

    alpha: float
    correct: int
    low: float
    high: float


class Undecided(NamedTuple):
    """Images that may be classified correctly at some alphas and not at others: their numbers [k], ``base`` and ``slope`` [k, C].

    Of all images, those that are ``right`` [n] are classified correctly at all alphas; the rest of them at none.
    """

    right: Tensor
    images: Tensor
    base: Tensor
    slope: Tensor


class Base:
    """What alpha * slope is added to: ``base + gamma * shift`` [n, C] of images with ``labels`` [n], for any gamma."""

    def __init__(self, base: Tensor, labels: Tensor, shift: Tensor | None = None) -> None:
        self.base, self.shift, self.labels = base, shift, labels
        self.lead = ahead(base, labels)
        self.shift_lead = None if shift is None else ahead(shift, labels, own=0.0)
        self.greatest = _greatest(base)
        self.greatest_shift = None if shift is None else _greatest(shift)

    def at(self, gamma: float) -> tuple[Tensor, Tensor]:
        """The lead n [n, C] of the label over each class without a slope, and by how much rounding may falsify it."""
        if self.shift_lead is None or self.greatest_shift is None:
            return self.lead, ROUNDING * self.greatest
        return torch.add(self.lead, self.shift_lead, alpha=gamma), ROUNDING * (self.greatest + abs(gamma) * self.greatest_shift)

    def of(self, images: Tensor, gamma: float) -> Tensor:
        """The logits without a slope of some images [k, C]."""
        base = _some(self.base, images)
        return base if self.shift is None else base + gamma * _some(self.shift, images)


class Slope:
    """One ``slope`` [n, C] with images of ``base``, for alphas from 0 to ``high``."""

    def __init__(self, base: Base, slope: Tensor, high: float) -> None:
        self.base, self.slope, self.high = base, slope, high
        self.d = slope - slope.gather(1, base.labels[:, None])
        self.high_slack = high * ROUNDING * _greatest(slope)

    def undecided(self, gamma: float = 0.0) -> Undecided:
        """Leave out the images that are classified correctly at all alphas, or at none.

        Leads are affine in alpha. So a label that leads over all classes at 0 and at ``high`` does so in between, and one that is
        behind the same class at both is so in between: nearly all images are one or the other.
        """
        first, slack = self.base.at(gamma)
        last, last_slack = torch.sub(first, self.d, alpha=self.high), slack + self.high_slack
        right = (_least(first) > slack) & (_least(last) > last_slack)
        wrong = _least(torch.maximum(first, last)) < -last_slack
        images = (right | wrong).logical_not_().squeeze(1).nonzero().squeeze(1)
        return Undecided(right.squeeze(1), images, self.base.of(images, gamma), _some(self.slope, images))


class Sweep:
    """The alphas of at least 0 at which images with logits ``base + alpha * slope`` [k, C] are classified correctly."""

    def __init__(self, base: Tensor, slope: Tensor, labels: Tensor) -> None:
        self.base, self.slope, self.labels = base, slope, labels
        n, slack = ahead(base, labels), ROUNDING * _greatest(base).clamp_(min=TINY)
        d, slack_of_d = slope - slope.gather(1, labels[:, None]), ROUNDING * _greatest(slope)
        self.certain = _interval(n - slack, d + slack_of_d)  # where the computed logits are in no way a tie
        self.possible = _interval(n + slack, d - slack_of_d)  # outside of which it is certainly wrong

    def counts(self, alphas: Tensor, line: Tensor, lines: int) -> Tensor:
        """Images that are classified correctly at each of ``alphas`` [A], ascending, float32: int64 [lines, A], as by evaluating each.

        ``line`` [k] tells among which each image is counted.
        """
        first, last = _places(alphas, *self.possible)
        surely_first, surely_last = _places(alphas, *self.certain)
        empty = surely_last <= surely_first
        surely_first = torch.where(empty, first, surely_first.clamp(first, last))
        surely_last = torch.where(empty, first, surely_last.clamp(first, last))
        size = len(alphas) + 1
        begin = line * size
        begun, ended = (torch.bincount(place + begin, minlength=lines * size) for place in (surely_first, surely_last))
        counts = (begun - ended).view(lines, size).cumsum(dim=1)
        starts, lengths = torch.cat([first, surely_last]), torch.cat([surely_first - first, last - surely_last])
        self._count_plainly(counts.view(-1), begin, alphas, starts, lengths)
        return counts[:, :-1]

    def _count_plainly(self, counts: Tensor, begin: Tensor, alphas: Tensor, starts: Tensor, lengths: Tensor) -> None:
        """Add to ``counts`` what plain evaluation says of ``lengths`` [2k] grid points from ``starts`` [2k] on.

        ``begin`` [k] tells where the counts of each image begin.
        """
        some = lengths.nonzero().squeeze(1)
        for part in some.split(max(1, PAIRS // (self.slope.shape[1] * len(alphas)))):
            length = lengths[part]
            rows = part.remainder(len(self.slope)).repeat_interleave(length)
            within = torch.arange(len(rows), device=rows.device) - (length.cumsum(0) - length).repeat_interleave(length)
            at = starts[part].repeat_interleave(length) + within
            right = self._logits(rows, alphas[at]).argmax(dim=1) == self.labels[rows]
            counts += torch.bincount((begin[rows] + at)[right], minlength=len(counts))

    def _logits(self, rows: Tensor, alphas: Tensor) -> Tensor:
        """Logits [P, C] of some images, each at an alpha of its own, computed as :class:`fewshot.affine.Affine` does."""
        return self.base[rows] + alphas[:, None] * self.slope[rows]


def ahead(values: Tensor, labels: Tensor, own: float = INFINITE) -> Tensor:
    """values_y - values_c for each class c [n, C], and ``own`` for the label y itself."""
    of_label = values.gather(1, labels[:, None])
    return (of_label - values).scatter_(1, labels[:, None], own)


def _greatest(values: Tensor) -> Tensor:
    """The greatest magnitude of each image [n, 1]."""
    return torch.maximum(values.amax(dim=1, keepdim=True), -values.amin(dim=1, keepdim=True))


def _least(values: Tensor) -> Tensor:
    """The least value of each image [n, 1]."""
    return values.amin(dim=1, keepdim=True)


def _some(values: Tensor, images: Tensor) -> Tensor:
    """Some rows, class by class in memory."""
    return values.T.index_select(1, images).T


def _interval(n: Tensor, d: Tensor) -> Interval:
    """Between the greatest n / d [k, C] with d < 0 and the least with d >= 0, of alphas of at least 0.

    Where the sign is the other one, the quotient is multiplied by 0, and an infinite bound is added to it above. Signs are numbers
    here, since comparisons and selections take several times as long.
    """
    inverse = d.reciprocal()
    infinite = torch.copysign(_ONE.to(d.device), d).sub_(1).mul_(-INFINITE / 2)
    return (n * inverse.clamp(max=0)).amax(dim=1), torch.addcmul(infinite, n, inverse.clamp_(min=0)).amin(dim=1)


def _places(alphas: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The grid points in [low, high]: the first, and the one after the last. An end that is NaN, 0 / 0, makes it empty."""
    empty = ~(low <= high)
    first = torch.searchsorted(alphas, low).masked_fill_(empty, 0)
    return first, torch.searchsorted(alphas, high, right=True).masked_fill_(empty, 0)


def best_in(lows: Tensor, highs: Tensor, low: float, high: float) -> Best:
    """The middle of the widest part of [low, high] that lies in the most intervals [n]; float32, ``correct`` those it lies in."""
    some = (lows <= highs) & (lows <= high) & (highs >= low)
    starts, ends = lows[some].clamp(min=low), highs[some].clamp(max=high)
    ends_of_range = starts.new_tensor([low, high])
    points = torch.cat([ends_of_range, starts, ends]).sort().values
    left, right = points[:-1], points[1:]
    starts, ends = starts.sort().values, ends.sort().values
    inside = torch.searchsorted(starts, left, right=True) - torch.searchsorted(ends, left, right=True)
    inside = inside.masked_fill_(right <= left, -1)
    most = inside.max()
    widest = torch.where(inside == most, right - left, -1.0).argmax()
    ends_of_best = torch.stack([left[widest], right[widest]]).tolist()
    alpha = torch.tensor(sum(ends_of_best) / 2, dtype=torch.float32).item()
    return Best(alpha, int(most), *ends_of_best)
