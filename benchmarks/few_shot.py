"""Seconds and memory of the search for hyper-parameters of Tip-Adapter and Tip-X: the exact sweep against a vectorised grid.

    python -m benchmarks.few_shot                     # 5,000 images, 100 classes, 16 shots; then an ImageNet-size cache: minutes
    python -m benchmarks.few_shot --rows tip_x --grid-lines 4

Features are drawn around the means of their classes. The grid is timed in two forms, neither of which is the released one, where
similarities, exp and the product with one-hot labels are made anew for every point. In both, similarities are computed once, exp and the
product with one-hot labels once for each beta, the divergences of Tip-X by the package. `broadcast` adds eight alphas at once by
broadcasting and takes argmax, over all images: vectorised as one would write it. `blocks` does so in blocks of images that stay in the
processor's caches, without new memory: as fast as we could make it.

`sweep` and `exact` are what ``--search grid`` and ``--search exact`` do. Counts of all points that several ways evaluate are compared.
Tip-X's 200,000 points would take the grid too long, so it is timed on ``--grid-lines`` of the 1,000 lines of 200 alphas, spread
evenly, and scaled. Each run has a process to itself, so peak memory is its own; `start` is what the process holds before, that is its
libraries and the features. `CPU s` is what counts on a machine that others use too; speed-ups are its ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.arguments import positive_int
from common.cli import Parser, run
from common.provenance import peak_memory_mib

ROWS, ALPHAS = 512, 8  # of a block of the grid: 1.6 MB of logits for 100 classes

ROWS_OF_TABLE = ("tip_adapter", "tip_x", "imagenet")


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
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a run went: ``counts`` [lines, alphas] of the lines that the grid evaluated, ``best`` of all."""

    seconds: float
    cpu: float
    start_mib: int
    peak_mib: int
    best: int
    counts: Any = None
    point: str = ""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=5000, help="N, validation images")
    parser.add_argument("--classes", type=positive_int, default=100, help="C")
    parser.add_argument("--shots", type=positive_int, default=16, help="labelled images of each class")
    parser.add_argument("--dim", type=positive_int, default=512, help="D")
    parser.add_argument("--grid-lines", type=positive_int, default=10, help="lines of Tip-X's 1,000 on which the grid is timed")
    parser.add_argument("--threads", type=positive_int, default=multiprocessing.cpu_count(), help="of PyTorch")
    parser.add_argument("--rows", nargs="+", choices=ROWS_OF_TABLE, default=ROWS_OF_TABLE, help="which parts of the table")
    return parser.parse_args()


def draw(problem: Problem) -> Any:
    """Features and texts around the means of their classes."""
    import torch
    from torch.nn.functional import normalize

    from fewshot.data import Features, FewShotData

    generator = torch.Generator().manual_seed(0)
    means = normalize(torch.randn(problem.classes, problem.dim, generator=generator), dim=1)

    def side(labels: Any) -> Features:
        rows = torch.randn(len(labels), problem.dim, generator=generator).mul_(problem.noise).add_(means[labels])
        return Features(normalize(rows, dim=1), None, labels)

    texts = normalize(means + problem.noise * torch.randn(means.shape, generator=generator), dim=1)
    cache = side(torch.arange(problem.classes).repeat(problem.shots))
    images = side(torch.randint(problem.classes, (problem.images,), generator=generator))
    return FewShotData(cache, images, images, texts)


def start(problem: Problem) -> tuple[Any, Any, Any, list[int]]:
    """Data, model, grid and the lines that are compared."""
    from fewshot.methods.tip_adapter import tip_model
    from fewshot.methods.tip_x import tip_x_model
    from fewshot.published import tip_grid, tip_x_grid

    data = draw(problem)
    if problem.method == "tip_adapter":
        return data, lambda: tip_model(data, data.cache.original, False), tip_grid("", "overlap"), list(range(20))
    grid = tip_x_grid("overlap")
    return data, lambda: tip_x_model(data, False, False), grid, np.linspace(0, len(grid.lines) - 1, problem.lines).astype(int).tolist()


def by_sweep(problem: Problem, search: str) -> Outcome:
    """The package's way."""
    from fewshot.affine import Point
    from fewshot.search import Searched

    data, model, grid, compared = start(problem)
    before, started = peak_memory_mib()["process"], clocks()
    searched = Searched(model(), data.val, len(data.cache) + data.classes, grid)
    counts = searched.counts() if search == "grid" else None
    found = searched.first_best(counts) if counts is not None else searched.find(search, Point(1.0, 1.0))
    taken = clocks() - started
    lines = None if counts is None else counts.flatten(0, 1)[compared].numpy()
    point = ", ".join(f"{name} {value:.4g}" for name, value in found.point._asdict().items())
    return Outcome(taken[0], taken[1], before, peak_memory_mib()["process"], found.correct, lines, point)


def by_grid(problem: Problem, form: str) -> Outcome:
    """Every point; similarities once, exp and the product with one-hot labels once a beta."""
    import torch
    from torch.nn.functional import one_hot

    data, model, grid, compared = start(problem)
    before, started = peak_memory_mib()["process"], clocks()
    affinity = data.val.original @ data.cache.original.T
    values = one_hot(data.cache.labels, data.classes).float()
    base = 100 * data.val.original @ data.classifier.T
    shift = model()(data.val)(slice(None)).shift  # the divergences in closed form; only Tip-X has it
    alphas, counts, earlier = torch.tensor(grid.alphas, dtype=torch.float32), [], None
    for number in compared:
        beta, gamma = grid.lines[number]
        if beta != earlier:
            earlier, slope = beta, (affinity - 1).mul_(beta).exp_() @ values
        of_line = base if shift is None else base + gamma * shift
        counts.append(FORMS[form](of_line.contiguous(), slope, data.val.labels, alphas))
    taken = (clocks() - started) * len(grid.lines) / len(compared)
    every = torch.stack(counts)
    return Outcome(taken[0], taken[1], before, peak_memory_mib()["process"], int(every.max()), every.numpy())


def clocks() -> Any:
    """Seconds on the wall, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


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


FORMS = {"broadcast": broadcast, "blocks": blocks}


def alone(way: Any, problem: Problem, search: str = "") -> Outcome:
    """Run ``way`` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=use, initargs=(problem.threads,)) as pool:
        return pool.submit(way, problem, search).result()


def use(threads: int) -> None:
    """Let PyTorch work in so many threads."""
    import torch

    torch.set_num_threads(threads)


def show(problem: Problem, way: str, outcome: Outcome, note: str) -> None:
    """One line of the table."""
    size = f"{problem.images:,} x {problem.classes * problem.shots:,} x {problem.classes:,}"
    print(f"{problem.method:13}{size:24}{way:10}{outcome.seconds:10.2f}{outcome.cpu:10.2f}", end="")
    print(f"{outcome.start_mib:11}{outcome.peak_mib:11}{100 * outcome.best / problem.images:9.2f} %   {note}", flush=True)


def compare(problem: Problem) -> None:
    """All four ways; the counts of the same points are the same."""
    grids = {form: alone(by_grid, problem, form) for form in FORMS}
    part = f"scaled from {problem.lines} lines, best of these" if problem.method == "tip_x" else ""
    for form, outcome in grids.items():
        show(problem, form, outcome, part)
    sweep = alone(by_sweep, problem, "grid")
    show(problem, "sweep", sweep, f"{ratios(grids, sweep)}; {differences(problem, grids, sweep)}; {sweep.point}")
    exact = alone(by_sweep, problem, "exact")
    assert exact.best >= sweep.best, "the exact search is worse than the grid"
    show(problem, "exact", exact, f"{ratios(grids, exact)}; {exact.point}")


def ratios(grids: dict[str, Outcome], ours: Outcome) -> str:
    """How many times faster than each form of the grid, by the time of the processor."""
    return " and ".join(f"{grid.cpu / ours.cpu:.1f} x faster than {form}" for form, grid in grids.items())


def differences(problem: Problem, grids: dict[str, Outcome], sweep: Outcome) -> str:
    """By how many images the counts of the same points differ at most; so few that only rounding can be the reason."""
    apart = max(int(np.abs(grid.counts - sweep.counts).max()) for grid in grids.values())
    best = max(abs(int(grid.counts.max()) - int(sweep.counts.max())) for grid in grids.values())
    assert max(apart, best) <= tolerance(problem), f"counts of the same points differ by {apart}"
    return f"counts of {sweep.counts.size:,} points differ by at most {apart}, the best of them by {best}"


def tolerance(problem: Problem) -> int:
    """Images that the two ways may see differently: their sums over keys are rounded differently."""
    return max(1, problem.images // 1000)


def main() -> None:
    """Tip-Adapter, Tip-X, and the cache of ImageNet's size."""
    args = parse_arguments()
    print(f"D = {args.dim}, float32, {args.threads} threads; a point is an alpha, a beta and, for Tip-X, a gamma\n")
    columns = f"{'seconds':>10}{'CPU s':>10}{'start MiB':>11}{'peak MiB':>11}{'best':>11}"
    print(f"{'method':13}{'images x keys x classes':24}{'way':10}{columns}", flush=True)
    size = (args.images, args.classes, args.shots, args.dim, 0.17, args.grid_lines, args.threads)
    for method in ("tip_adapter", "tip_x"):
        if method in args.rows:
            compare(Problem(method, *size))
    if "imagenet" in args.rows:
        large = Problem("tip_adapter", 50_000, 1000, 16, args.dim, 0.14, args.grid_lines, args.threads)
        outcome = alone(by_sweep, large, "grid")
        show(large, "sweep", outcome, f"all similarities would take {50_000 * 16_000 * 4 / 2**20:,.0f} MiB; {outcome.point}")


if __name__ == "__main__":
    run(main)
