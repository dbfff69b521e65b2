"""Seconds and memory of the search for hyper-parameters of Tip-Adapter and Tip-X: the exact sweep against plain grids.

    python -m benchmarks.few_shot                     # 5,000 images, 100 classes, 16 shots; then an ImageNet-size cache: minutes
    python -m benchmarks.few_shot --rows tip_x --grid-lines 4
    python -m benchmarks.few_shot --rows tip_x --whole

Features are drawn around the means of their classes. Three plain ways have the sweep for comparison:

`released`   as the loops of the released code: similarities, exp and the product with one-hot labels anew for every point
`broadcast`  the vectorised grid as one would write it: similarities once, exp and the product once for each beta, then eight alphas at once
             by broadcasting, and argmax, over all images
`blocks`     the same in blocks of images that stay in the processor's caches, without new memory: as fast as we could make it

The divergences of Tip-X are the package's in all of them, once. Where every point would take too long, some are timed and the time
is scaled: `released` on ``--points`` points, the other two for Tip-X on ``--grid-lines`` of the 1,000 lines of 200 alphas, spread evenly.

`sweep` and `exact` are what ``--search grid`` and ``--search exact`` do. Counts of all points that several ways evaluate are compared;
sums over keys are rounded differently in the plain ways, so a few images may differ. ``--whole`` adds `whole`: the package's own logits
at every point of the grid, one by one, whose counts have to be equal. Each way has a process to itself, so peak memory is its own;
`start` is what the process holds before, that is its libraries and the features. Times are the least of ``--repeats`` runs. `CPU s` is
what counts on a machine that others use too; speed-ups are its ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
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
    points: int
    threads: int
    repeats: int


@dataclass(frozen=True)
class Found:
    """What a way finds: ``counts`` of the ``points`` it evaluates, which are numbered line by line; the ``best`` of them, and ``where``.

    ``taken`` are the seconds for the whole grid, on the wall and of the processor.
    """

    taken: Any
    points: Any
    counts: Any
    best: int
    where: str = ""


@dataclass(frozen=True)
class Outcome:
    """How the runs of a way went."""

    seconds: float
    cpu: float
    start_mib: int
    peak_mib: int
    found: Found


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=5000, help="N, validation images")
    parser.add_argument("--classes", type=positive_int, default=100, help="C")
    parser.add_argument("--shots", type=positive_int, default=16, help="labelled images of each class")
    parser.add_argument("--dim", type=positive_int, default=512, help="D")
    parser.add_argument("--grid-lines", type=positive_int, default=10, help="lines of Tip-X's 1,000 on which the grid is timed")
    parser.add_argument("--points", type=positive_int, default=20, help="points of the grid on which `released` is timed")
    parser.add_argument("--repeats", type=positive_int, default=3, help="runs of each way")
    parser.add_argument("--whole", action="store_true", help="evaluate every point plainly: minutes for Tip-X")
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


def start(problem: Problem) -> tuple[Any, Any, Any]:
    """Data, how the model is made, and the grid."""
    from fewshot.methods.tip_adapter import tip_model
    from fewshot.methods.tip_x import tip_x_model
    from fewshot.published import tip_grid, tip_x_grid

    data = draw(problem)
    if problem.method == "tip_adapter":
        return data, lambda: tip_model(data, data.cache.original, False), tip_grid("", "overlap")
    return data, lambda: tip_x_model(data, False, False), tip_x_grid("overlap")


def spread(count: int, among: int) -> Any:
    """So many of the numbers below ``among``, evenly; all of them if they are not more."""
    return np.unique(np.linspace(0, among - 1, min(count, among)).astype(int))


def sweep(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """``--search grid``."""
    started, searched = clocks(), search_of(data, model, grid)
    counts = searched.counts()
    found = searched.first_best(counts)
    return Found(clocks() - started, np.arange(counts.numel()), counts.flatten().numpy(), found.correct, named(found.point))


def exact(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """``--search exact``."""
    from fewshot.affine import Point

    started = clocks()
    found = search_of(data, model, grid).find("exact", Point(1.0, 1.0))
    return Found(clocks() - started, None, None, found.correct, named(found.point))


def search_of(data: Any, model: Any, grid: Any) -> Any:
    """The package's search."""
    from fewshot.search import Searched

    return Searched(model(), data.val, len(data.cache) + data.classes, grid)


def named(point: Any) -> str:
    """A point in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in point._asdict().items())


def released(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """Some points, each from the features on."""
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
    return Found(once + each * len(grid.lines) * len(grid.alphas) / len(points), points, torch.stack(counts).numpy(), int(max(counts)))


def on_lines(problem: Problem, data: Any, model: Any, grid: Any, line_of: Any) -> Found:
    """All alphas of some lines, or of all: similarities once, exp and the product with one-hot labels once a beta."""
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
    return Found(taken, (lines[:, None] * len(alphas) + np.arange(len(alphas))).ravel(), every, int(every.max()))


def plain_parts(data: Any, model: Any) -> tuple[Any, Any, Any]:
    """One-hot labels of the keys; zero-shot logits; what gamma multiplies, with the divergences in closed form, which only Tip-X has."""
    from torch.nn.functional import one_hot

    shift = model()(data.val)(slice(None)).shift
    return one_hot(data.cache.labels, data.classes).float(), 100 * data.val.original @ data.classifier.T, shift


def whole(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """Every point, plainly, of the package's own logits in its own tiles of images; the first best in the grid's order."""
    import torch

    from fewshot.affine import tiles

    started, searched, of = clocks(), search_of(data, model, grid), model()(data.val)
    counts = torch.zeros(len(grid.lines), len(grid.alphas), dtype=torch.int64)
    for rows in tiles(len(data.val), searched.keys, data.val.labels.device):
        affine, earlier = of(rows), None
        for number, (beta, gamma) in enumerate(grid.lines):
            if beta != earlier:
                earlier, slope = beta, affine.slope(beta, gamma).contiguous()
            counts[number] += blocks(affine.based(gamma).contiguous(), slope, data.val.labels[rows], searched.alphas)
    found = searched.first_best(counts.view(len(grid.betas), len(grid.gammas), -1))
    return Found(clocks() - started, np.arange(counts.numel()), counts.flatten().numpy(), found.correct, named(found.point))


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


PLAIN = {
    "released": released,
    "broadcast": partial(on_lines, line_of=broadcast),
    "blocks": partial(on_lines, line_of=blocks),
}


def alone(way: Any, problem: Problem, repeats: int = 0) -> Outcome:
    """Run ``way`` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=use, initargs=(problem.threads,)) as pool:
        return pool.submit(timed, way, problem, repeats or problem.repeats).result()


def timed(way: Any, problem: Problem, repeats: int) -> Outcome:
    """The least times of some runs."""
    data, model, grid = start(problem)
    before = peak_memory_mib()["process"]
    runs = [way(problem, data, model, grid) for _ in range(repeats)]
    seconds, cpu = np.min([found.taken for found in runs], axis=0)
    return Outcome(seconds, cpu, before, peak_memory_mib()["process"], runs[-1])


def clocks() -> Any:
    """Seconds on the wall, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def use(threads: int) -> None:
    """Let PyTorch work in so many threads."""
    import torch

    torch.set_num_threads(threads)


def show(problem: Problem, way: str, outcome: Outcome, note: str) -> None:
    """One line of the table."""
    size = f"{problem.images:,} x {problem.classes * problem.shots:,} x {problem.classes:,}"
    print(f"{problem.method:13}{size:24}{way:10}{outcome.seconds:10.2f}{outcome.cpu:10.2f}", end="")
    print(f"{outcome.start_mib:11}{outcome.peak_mib:11}{100 * outcome.found.best / problem.images:9.2f} %   {note}", flush=True)


def compare(problem: Problem, every_point: bool) -> None:
    """All ways; the counts of the same points are the same."""
    swept = alone(sweep, problem)
    plain = {}
    for name, way in PLAIN.items():
        plain[name] = outcome = alone(way, problem)
        points = len(outcome.found.points)
        part = f"scaled from {points:,} points, best of these; " if points < len(swept.found.points) else ""
        show(problem, name, outcome, part + difference(problem, outcome.found, swept.found))
    show(problem, "sweep", swept, f"{ratios(plain, swept)}; {swept.found.where}")
    better = alone(exact, problem)
    assert better.found.best >= swept.found.best, "the exact search is worse than the grid"
    show(problem, "exact", better, f"{ratios(plain, better)}; {better.found.where}")
    if every_point:
        outcome = alone(whole, problem, repeats=1)
        assert np.array_equal(outcome.found.counts, swept.found.counts), "the sweep's counts are not those of evaluating every point"
        assert outcome.found.where == swept.found.where, "the sweep's best point is another"
        show(problem, "whole", outcome, f"counts of all {len(outcome.found.points):,} points equal the sweep's; {outcome.found.where}")


def ratios(plain: dict[str, Outcome], ours: Outcome) -> str:
    """How many times faster than each plain way, by the time of the processor."""
    return ", ".join(f"{outcome.cpu / ours.cpu:.1f} x {name}" for name, outcome in plain.items())


def difference(problem: Problem, plain: Found, swept: Found) -> str:
    """By how many images the counts of the same points differ at most; so few that only rounding can be the reason."""
    same = swept.counts[plain.points]
    apart, best = int(np.abs(plain.counts - same).max()), abs(int(plain.counts.max()) - int(same.max()))
    assert max(apart, best) <= tolerance(problem), f"counts of the same points differ by {apart}"
    return f"counts of {same.size:,} points differ from the sweep's by at most {apart}, the best of them by {best}"


def tolerance(problem: Problem) -> int:
    """Images that the two ways may see differently: their sums over keys are rounded differently."""
    return max(1, problem.images // 1000)


def main() -> None:
    """Tip-Adapter, Tip-X, and the cache of ImageNet's size."""
    args = parse_arguments()
    print(f"D = {args.dim}, float32, {args.threads} threads; a point is an alpha, a beta and, for Tip-X, a gamma\n")
    columns = f"{'seconds':>10}{'CPU s':>10}{'start MiB':>11}{'peak MiB':>11}{'best':>11}"
    print(f"{'method':13}{'images x keys x classes':24}{'way':10}{columns}", flush=True)
    more = (args.grid_lines, args.points, args.threads, args.repeats)
    size = (args.images, args.classes, args.shots, args.dim, 0.17, *more)
    for method in ("tip_adapter", "tip_x"):
        if method in args.rows:
            compare(Problem(method, *size), args.whole)
    if "imagenet" in args.rows:
        large = Problem("tip_adapter", 50_000, 1000, 16, args.dim, 0.14, *more)
        outcome = alone(sweep, large, repeats=1)
        show(large, "sweep", outcome, f"all similarities would take {50_000 * 16_000 * 4 / 2**20:,.0f} MiB; {outcome.found.where}")


if __name__ == "__main__":
    run(main)
