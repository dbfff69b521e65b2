"""The search for hyper-parameters of cache models by plain grids: what benchmarks/few_shot.py has the sweep for comparison.

`released`   as the loops of the released code: similarities, exp and the product with one-hot labels anew for every point
`broadcast`  the vectorised grid as one would write it: similarities once, exp and the product once for each beta, then eight alphas at once
             by broadcasting, and argmax, over all images
`blocks`     the same in blocks of images that stay in the processor's caches, without new memory: as fast as we could make it

The divergences of Tip-X are the package's in all of them, once. Where every point would take too long, some are evaluated, spread evenly,
and the time is scaled to all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.work import Scaled

ROWS, ALPHAS = 512, 8  # of a block of the grid: 1.6 MB of logits for 100 classes


@dataclass(frozen=True)
class Problem:
    """What is searched: ``method`` is tip_adapter or tip_x."""

    method: str
    images: int
    classes: int
    shots: int
    dim: int
    noise: float
    lines: int
    points: int


@dataclass(frozen=True)
class Found:
    """What a way finds: ``counts`` of the ``points`` it evaluates, which are numbered line by line; the ``best`` of them, and ``where``."""

    points: Any
    counts: Any
    best: int
    where: str = ""


def released(problem: Problem, data: Any, model: Any, grid: Any) -> Scaled:
    """Some points, each from the features on."""
    import numpy as np
    import torch

    times = [clocks()]
    values, base, shift = plain_parts(data, model)
    times.append(clocks())
    points = spread(problem.points, len(grid.lines) * len(grid.alphas))
    counts = []
    for point in points:
        line, place = divmod(int(point), len(grid.alphas))
        beta, gamma = grid.lines[line]
        affinity = data.val.original @ data.cache.original.T
        logits = base + grid.alphas[place] * (torch.exp(-beta * (1 - affinity)) @ values)
        counts.append(((logits if shift is None else logits + gamma * shift).argmax(dim=1) == data.val.labels).sum())
    times.append(clocks())
    once, each = np.diff(times, axis=0)
    found = Found(points, torch.stack(counts).numpy(), int(max(counts)))
    return Scaled(found, *(once + each * len(grid.lines) * len(grid.alphas) / len(points)))


def on_lines(problem: Problem, data: Any, model: Any, grid: Any, line_of: Any) -> Scaled:
    """All alphas of some lines, or of all: similarities once, exp and the product with one-hot labels once a beta."""
    import numpy as np
    import torch

    started = clocks()
    values, base, shift = plain_parts(data, model)
    affinity = data.val.original @ data.cache.original.T
    once, for_betas, for_lines = clocks() - started, np.zeros(2), np.zeros(2)
    alphas, counts, slopes = torch.tensor(grid.alphas, dtype=torch.float32), [], {}
    lines = spread(problem.lines if shift is not None else len(grid.lines), len(grid.lines))
    for beta, gamma in (grid.lines[number] for number in lines):
        started = clocks()
        if beta not in slopes:
            slopes[beta] = (affinity - 1).mul_(beta).exp_() @ values
            for_betas += clocks() - started
            started = clocks()
        of_line = base if shift is None else base + gamma * shift
        counts.append(line_of(of_line.contiguous(), slopes[beta], data.val.labels, alphas))
        for_lines += clocks() - started
    taken = once + for_betas * len(grid.betas) / len(slopes) + for_lines * len(grid.lines) / len(lines)
    every = torch.cat(counts).numpy()
    return Scaled(Found((lines[:, None] * len(alphas) + np.arange(len(alphas))).ravel(), every, int(every.max())), *taken)


def plain_parts(data: Any, model: Any) -> tuple[Any, Any, Any]:
    """One-hot labels of the keys; zero-shot logits; what gamma multiplies, with the divergences in closed form, which only Tip-X has."""
    from torch.nn.functional import one_hot

    shift = model()(data.val)(slice(None)).shift
    return one_hot(data.cache.labels, data.classes).float(), 100 * data.val.original @ data.classifier.T, shift


def broadcast(base: Any, slope: Any, labels: Any, alphas: Any) -> Any:
    """Images that are right at each alpha, some alphas at once."""
    import torch

    parts = [((base + some[:, None, None] * slope).argmax(dim=2) == labels).sum(dim=1) for some in alphas.split(ALPHAS)]
    return torch.cat(parts)


def blocks(base: Any, slope: Any, labels: Any, alphas: Any) -> Any:
    """Images that are right at each alpha, in blocks of images and alphas."""
    import torch

    counts = torch.zeros(len(alphas), dtype=torch.int64)
    room = torch.empty(ALPHAS, ROWS, base.shape[1])
    for first in range(0, len(base), ROWS):
        rows = slice(first, first + ROWS)
        for start in range(0, len(alphas), ALPHAS):
            some = alphas[start : start + ALPHAS]
            logits = room[: len(some), : len(base[rows])]
            torch.mul(slope[rows], some[:, None, None], out=logits).add_(base[rows])
            counts[start : start + ALPHAS] += (logits.argmax(dim=2) == labels[rows]).sum(dim=1)
    return counts


def spread(count: int, among: int) -> Any:
    """So many of the numbers below ``among``, evenly; all of them if they are not more."""
    import numpy as np

    return np.unique(np.linspace(0, among - 1, min(count, among)).astype(int))


def clocks() -> Any:
    """Seconds on the wall, and of the processor."""
    import numpy as np

    return np.array([time.perf_counter(), time.process_time()])


PLAIN = {
    "released": released,
    "broadcast": partial(on_lines, line_of=broadcast),
    "blocks": partial(on_lines, line_of=blocks),
}
