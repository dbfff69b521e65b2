"""Hyper-parameters of a cache method, found on the validation images: on a released grid, or among all real numbers.

For each beta (and gamma) of the grid one pass over the validation logits tells how many images are right at every alpha
(:mod:`fewshot.sweep`). ``grid`` takes the first best point in the order in which released code goes through them. ``exact`` takes the
best alpha of all lines, then goes on from there along gamma, along beta and along alpha as long as more images are right. Both go
through the validation images in tiles, with all betas and gammas for each, so that similarities are computed once and no more than a
tile of them is in memory. ``exact`` holds two numbers for each image and line besides, and goes through the images again where
those would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshot.affine import Affine, AffineModel, Point, count_correct, logits_of, tiles
from fewshot.data import Features, FewShotData
from fewshot.method import Fitted
from fewshot.options import FewShotOptions
from fewshot.sweep import INFINITE, Base, Slope, Sweep, Undecided, best_in

INTERVAL_BYTES = 2**28  # of the intervals that are held at once
TOGETHER = 2**16  # logits of undecided images that are swept at once
SMALL = 2**14  # logits of a tile whose images are all swept, since deciding which ones to leave out takes as long
ROUNDS = 3  # of refinement, each with half the steps of the one before
NEAR = 9  # betas or gammas tried in the neighbourhood of the best

Line = tuple[float, float]  # beta and gamma, for all alphas


@dataclass(frozen=True)
class Grid:
    """Ascending values; ``order`` names them from the outermost loop of the released code to the innermost."""

    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    gammas: tuple[float, ...] = (0.0,)
    order: tuple[str, ...] = ("alpha", "beta", "gamma")

    @property
    def lines(self) -> list[Line]:
        """All pairs of beta and gamma, beta by beta."""
        return list(product(self.betas, self.gammas))

    @property
    def has_gamma(self) -> bool:
        """Whether there is a gamma."""
        return self.gammas != (0.0,)


class Found(NamedTuple):
    """A point and how many validation images are right there; ``width`` of the interval of alphas, or gammas, for which that is so."""

    point: Point
    correct: int
    width: float = 0.0


class Swept(NamedTuple):
    """What alphas do to the images ``rows`` on the ``lines``.

    On each line those that are ``right`` [lines, n] are so at all alphas; ``sweep`` is over images that are so at some, numbers
    ``images`` [k] among ``rows``, on ``line`` [k] of the lines. All others are wrong.
    """

    rows: slice
    lines: slice
    right: Tensor
    images: Tensor
    line: Tensor
    sweep: Sweep

    def counts(self, alphas: Tensor) -> Tensor:
        """Images that are right at each alpha of each line [lines, A]."""
        return self.sweep.counts(alphas, self.line, len(self.right)) + self.right.sum(dim=1, keepdim=True)

    def intervals(self) -> Tensor:
        """The ends between which each image is certainly right on each line [2, lines, n]."""
        low = torch.where(self.right, 0.0, INFINITE).index_put_((self.line, self.images), self.sweep.certain[0])
        high = torch.where(self.right, INFINITE, 0.0).index_put_((self.line, self.images), self.sweep.certain[1])
        return torch.stack([low, high])


def fitted(
    model: AffineModel, data: FewShotData, options: FewShotOptions, grid: Grid, fixed: Point, facts: Mapping[str, Any] | None = None
) -> Fitted:
    """The classifier that ``model`` is at the hyper-parameters that are found on ``data.val``, or ``fixed``."""
    keys = len(data.cache) + data.classes
    if data.val is None or len(data.val) == 0:
        search, found = "fixed", None
    else:
        search, found = options.search, Searched(model, data.val, keys, grid).find(options.search, fixed)
    point = fixed if found is None else found.point
    named = {"alpha": point.alpha, "beta": point.beta} | ({"gamma": point.gamma} if grid.has_gamma else {})
    return Fitted(
        named,
        lambda images: logits_of(model, images, keys, point),
        None if found is None else found.correct,
        {"search": search, **(facts or {})},
    )


class Searched:
    """The validation images, and what is asked of them; ``keys`` bounds the numbers that one image needs in memory."""

    def __init__(self, model: AffineModel, val: Features, keys: int, grid: Grid) -> None:
        self.model, self.val, self.keys, self.grid = model, val, keys, grid
        self.alphas = torch.tensor(grid.alphas, dtype=torch.float32, device=val.labels.device)

    def find(self, search: str, fixed: Point) -> Found:
        """By ``exact``, by ``grid``, or the ``fixed`` point with its count."""
        if search == "fixed":
            return self.confirmed(fixed)
        return self.on_grid() if search == "grid" else self.refined(self.best_of_all_alphas(self.grid.lines))

    def confirmed(self, point: Point, width: float = 0.0) -> Found:
        """A point with its count, by plain evaluation."""
        return Found(point, count_correct(self.model, self.val, self.keys, point), width)

    def counts(self) -> Tensor:
        """Images that are right at every point of the grid, int64 [betas, gammas, alphas], equal to evaluating all of them."""
        lines = self.grid.lines
        counts = torch.zeros(len(lines), len(self.alphas), dtype=torch.int64, device=self.val.labels.device)
        for swept in self._sweeps(lines):
            counts[swept.lines] += swept.counts(self.alphas)
        return counts.view(len(self.grid.betas), len(self.grid.gammas), -1)

    def on_grid(self) -> Found:
        """The first best point in the released order."""
        return self.first_best(self.counts())

    def first_best(self, counts: Tensor) -> Found:
        """The first best of ``counts`` in the released order."""
        axes = {"beta": self.grid.betas, "gamma": self.grid.gammas, "alpha": self.grid.alphas}
        ordered = counts.cpu().permute([list(axes).index(name) for name in self.grid.order])
        where = torch.unravel_index(ordered.flatten().argmax(), ordered.shape)
        at = {name: axes[name][int(place)] for name, place in zip(self.grid.order, where, strict=True)}
        return Found(Point(**at), int(ordered.max()))

    def best_of_all_alphas(self, lines: Sequence[Line]) -> Found:
        """The best alpha of the best line, in the middle of the interval where that is so; or a point of the grid, if that is better.

        A point of the grid can be better by images whose logits tie. Of equally good intervals it is the widest in units of logits: in
        those of alpha, lines whose slope is next to nothing would win, on which every alpha leaves the zero-shot classifier as it is.
        """
        n, low, high = len(self.val), self.grid.alphas[0], self.grid.alphas[-1]
        at_once = max(1, INTERVAL_BYTES // (8 * n))
        best: list[Found] = []
        for start in range(0, len(lines), at_once):
            block = lines[start : start + at_once]
            intervals = torch.empty(2, len(block), n, device=self.val.labels.device)
            counts = torch.zeros(len(block), len(self.alphas), dtype=torch.int64, device=intervals.device)
            for swept in self._sweeps(block):
                intervals[:, swept.lines, swept.rows] = swept.intervals()
                counts[swept.lines] += swept.counts(self.alphas)
            for line, lows, highs, on_grid in zip(block, *intervals, counts, strict=True):
                of_line = best_in(lows, highs, low, high)
                found = Found(Point(of_line.alpha, *line), of_line.correct, of_line.high - of_line.low)
                if on_grid.max() > found.correct:
                    found = Found(Point(self.alphas[on_grid.argmax()].item(), *line), int(on_grid.max()))
                if not best or found.correct >= best[0].correct:
                    best = [*(each for each in best if each.correct == found.correct), found]
        spreads = self._spreads([each.point for each in best]) if len(best) > 1 else [0.0]
        widest, _ = max(zip(best, spreads, strict=True), key=lambda each: each[0].width * each[1])
        return self.confirmed(widest.point, widest.width)

    def _spreads(self, points: Sequence[Point]) -> list[float]:
        """By how much the slope at each point tells classes apart: the sum over images of the largest less the smallest."""
        of, spreads = self.model(self.val), [0.0] * len(points)
        for rows in tiles(len(self.val), self.keys, self.val.labels.device):
            affine, known = of(rows), dict[Line, float]()
            for number, (_, beta, gamma) in enumerate(points):
                slope_of = (beta, gamma if affine.shift is None else 0.0)
                if slope_of not in known:
                    known[slope_of] = _spread(affine.slope(beta, gamma))
                spreads[number] += known[slope_of]
        return spreads

    def refined(self, best: Found) -> Found:
        """Better points near ``best``, if there are any: gamma, beta and alpha in turn."""
        for halvings in range(ROUNDS):
            before = best.correct
            for improve in (self._along_gamma, self._near_beta, self._near_gamma):
                found = improve(best.point, halvings)
                if found is not None and found.correct > best.correct:
                    best = found
            if best.correct == before:
                break
        return best

    def _along_gamma(self, point: Point, halvings: int) -> Found | None:
        """The best gamma of all real numbers, where logits are affine in it."""
        of, intervals = self.model(self.val), []
        for rows in tiles(len(self.val), self.keys, self.val.labels.device):
            affine = of(rows)
            if affine.shift is None:
                return None
            base = affine.base + point.alpha * affine.slope(point.beta, point.gamma)
            intervals.append(torch.stack(Sweep(base, affine.shift, self.val.labels[rows]).certain))
        lows, highs = torch.cat(intervals, dim=1)
        gamma = best_in(lows, highs, self.grid.gammas[0], self.grid.gammas[-1])
        return self.confirmed(point._replace(gamma=gamma.alpha), gamma.high - gamma.low)

    def _near_beta(self, point: Point, halvings: int) -> Found:
        return self.best_of_all_alphas([(beta, point.gamma) for beta in near(point.beta, self.grid.betas, halvings)])

    def _near_gamma(self, point: Point, halvings: int) -> Found | None:
        if not self.grid.has_gamma:
            return None
        return self.best_of_all_alphas([(point.beta, gamma) for gamma in near(point.gamma, self.grid.gammas, halvings)])

    def _sweeps(self, lines: Sequence[Line]) -> Iterator[Swept]:
        """Sweeps over the alphas of each line for each tile of images; those of several lines at once."""
        of, high = self.model(self.val), self.grid.alphas[-1]
        for rows in tiles(len(self.val), self.keys, self.val.labels.device):
            labels, size = self.val.labels[rows], 0
            waiting: list[Undecided] = []
            for number, each in enumerate(_undecided(of(rows), labels, lines, high), 1):
                waiting.append(each)
                size += each.slope.numel()
                if size >= TOGETHER or number == len(lines):
                    yield _together(rows, labels, slice(number - len(waiting), number), waiting)
                    waiting, size = [], 0


def _spread(slope: Tensor) -> float:
    return float((slope.amax(dim=1) - slope.amin(dim=1)).sum())


def _undecided(affine: Affine, labels: Tensor, lines: Sequence[Line], high: float) -> Iterator[Undecided]:
    """What depends on alpha on each line; what is the same for all gammas of a beta is made once.

    Where a tile is small, all images count as undecided: calls would take longer than numbers.
    """
    base, every = Base(affine.base, labels, affine.shift), torch.arange(len(labels), device=labels.device)
    earlier: Line | None = None
    for beta, gamma in lines:
        slope_of = (beta, gamma if affine.shift is None else 0.0)
        if slope_of != earlier:
            earlier, slope = slope_of, affine.slope(beta, gamma)
            decision = Slope(base, slope, high) if slope.numel() > SMALL else None
        if decision is None:
            yield Undecided(torch.zeros_like(labels, dtype=torch.bool), every, affine.based(gamma), slope)
        else:
            yield decision.undecided(gamma)


def _together(rows: slice, labels: Tensor, lines: slice, waiting: Sequence[Undecided]) -> Swept:
    """One sweep over the undecided images of several lines, so that calls do not take longer than numbers."""
    right, images, bases, slopes = zip(*waiting, strict=True)
    base, slope = (torch.cat([part.T for part in parts], dim=1).T for parts in (bases, slopes))
    place = torch.cat(images)
    line = torch.cat([torch.full_like(some, number) for number, some in enumerate(images)])
    return Swept(rows, lines, torch.stack(right), place, line, Sweep(base, slope, labels[place]))


def near(value: float, values: Sequence[float], halvings: int) -> list[float]:
    """Values between the neighbours of ``value`` on a grid, or of a part of that distance; within the grid's range."""
    step = (values[-1] - values[0]) / max(len(values) - 1, 1) / 2**halvings
    tried = (value + step * (2 * (i + 1) / (NEAR + 1) - 1) for i in range(NEAR))
    return sorted({min(max(each, values[0]), values[-1]) for each in tried})
