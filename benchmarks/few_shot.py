"""Time and memory of the search for hyper-parameters of Tip-Adapter and Tip-X: the exact sweep against plain grids.

    python -m benchmarks.few_shot                     # 5,000 images, 100 classes, 16 shots: a minute or two
    python -m benchmarks.few_shot --methods tip_x --against broadcast --ours sweep exact
    python -m benchmarks.few_shot --methods tip_x --against whole --repeats 1    # every point: its counts have to be equal
    python -m benchmarks.few_shot --methods tip_adapter --ours-only --images 50000 --classes 1000 --noise 0.14   # ImageNet's size

Features are drawn around the means of their classes. The plain grids, `released`, `broadcast` and `blocks`, are told of in
benchmarks/few_shot_plain.py; `released` is timed on ``--points`` points of the grid, the other two for Tip-X on ``--grid-lines`` of the
1,000 lines of 200 alphas, and their time is scaled to the whole grid. `whole` is the package's own logits at every point, one by one.

`sweep` and `exact` are what ``--search grid`` and ``--search exact`` do. Counts of right images at all points that both ways evaluate are
compared; sums over keys are rounded differently in the plain ways, so a few images may differ, but none in `whole`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.few_shot_plain import PLAIN, Found, Problem, blocks
from benchmarks.work import Disagreement, Way, Work, add_measuring_arguments
from common.arguments import positive_int
from common.cli import Parser

METHODS = {"tip_adapter": "Tip-Adapter", "tip_x": "Tip-X"}
KINDS = {
    "released": "every point anew, as released",
    "broadcast": "a vectorised grid",
    "blocks": "a vectorised grid in blocks",
    "whole": "every point, one by one",
}


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS), help="whose hyper-parameters")
    parser.add_argument("--against", nargs="+", choices=(*PLAIN, "whole"), default=["broadcast", "released"], help="plain ways, a row each")
    parser.add_argument("--ours", nargs="+", choices=tuple(OURS), default=["sweep"], help="rows of each method and plain way")
    parser.add_argument("--ours-only", action="store_true", help="leave the plain ways out")
    parser.add_argument("--images", type=positive_int, default=5000, help="N, validation images")
    parser.add_argument("--classes", type=positive_int, default=100, help="C")
    parser.add_argument("--shots", type=positive_int, default=16, help="labelled images of each class")
    parser.add_argument("--dim", type=positive_int, default=512, help="D")
    parser.add_argument("--noise", type=float, default=0.17, help="of a feature's numbers around the mean of its class")
    parser.add_argument("--grid-lines", type=positive_int, default=10, help="lines of Tip-X's 1,000 on which the grids are timed")
    parser.add_argument("--points", type=positive_int, default=20, help="points of the grid on which `released` is timed")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """A row for each method, plain way and way of ours."""
    for method in args.methods:
        problem = Problem(method, args.images, args.classes, args.shots, args.dim, args.noise, args.grid_lines, args.points)
        for against in [""] if args.ours_only else args.against:
            yield from (row(problem, against, ours, args.repeats) for ours in args.ours)


def row(problem: Problem, against: str, ours: str, repeats: int) -> Work:
    """One of them."""
    points = "200 x 20" if problem.method == "tip_adapter" else "200 x 20 x 50"
    name = f"{METHODS[problem.method]}, {ours} search, {points} points, N = {problem.images:,}, C = {problem.classes:,}"
    plain, kind = (partial(prepare, problem, against), KINDS[against]) if against else (None, "")
    return Work(name, kind, plain, partial(prepare, problem, ours), partial(agreement, problem), repeats, first_counts=True)


def prepare(problem: Problem, way: str) -> Way:
    """Data, model and grid, ready for the way of this name."""
    return partial(ALL[way], problem, *start(problem))


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


def sweep(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """``--search grid``."""
    import numpy as np

    searched = search_of(data, model, grid)
    counts = searched.counts()
    found = searched.first_best(counts)
    return Found(np.arange(counts.numel()), counts.flatten().numpy(), found.correct, named(found.point))


def exact(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """``--search exact``."""
    from fewshot.affine import Point

    found = search_of(data, model, grid).find("exact", Point(1.0, 1.0))
    return Found(None, None, found.correct, named(found.point))


def search_of(data: Any, model: Any, grid: Any) -> Any:
    """The package's search."""
    from fewshot.search import Searched

    return Searched(model(), data.val, len(data.cache) + data.classes, grid)


def named(point: Any) -> str:
    """A point in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in point._asdict().items())


def whole(problem: Problem, data: Any, model: Any, grid: Any) -> Found:
    """Every point, plainly, of the package's own logits in its own tiles of images; the first best in the grid's order."""
    import numpy as np
    import torch

    from fewshot.affine import tiles

    searched, of = search_of(data, model, grid), model()(data.val)
    counts = torch.zeros(len(grid.lines), len(grid.alphas), dtype=torch.int64)
    for rows in tiles(len(data.val), searched.keys, data.val.labels.device):
        affine, earlier = of(rows), None
        for number, (beta, gamma) in enumerate(grid.lines):
            if beta != earlier:
                earlier, slope = beta, affine.slope(beta, gamma).contiguous()
            counts[number] += blocks(affine.based(gamma).contiguous(), slope, data.val.labels[rows], searched.alphas)
    found = searched.first_best(counts.view(len(grid.betas), len(grid.gammas), -1))
    return Found(np.arange(counts.numel()), counts.flatten().numpy(), found.correct, named(found.point))


OURS = {"sweep": sweep, "exact": exact}
ALL: dict[str, Any] = {**PLAIN, "whole": whole, **OURS}


def agreement(problem: Problem, plain: Found | None, ours: Found) -> str:
    """How well both do, and how far the counts of the same points are apart."""
    best = f"best {100 * ours.best / problem.images:.2f} % at {ours.where}"
    if plain is None:
        return best
    if ours.counts is None:
        if ours.best < plain.best:
            raise Disagreement(f"the exact search finds {ours.best} right images, the grid {plain.best}")
        return f"{best}; the grid {100 * plain.best / problem.images:.2f} %"
    return f"{difference(problem, plain, ours)}; {best}"


def difference(problem: Problem, plain: Found, swept: Found) -> str:
    """By how many images the counts of the same points differ at most; so few that only rounding can be the reason."""
    import numpy as np

    same = swept.counts[plain.points]
    apart = int(np.abs(plain.counts - same).max())
    if apart > (0 if plain.where else tolerance(problem)) or plain.where not in ("", swept.where):
        raise Disagreement(f"counts of the same points differ by {apart} images")
    return f"counts of {same.size:,} points {f'within {apart}' if apart else 'equal'}"


def tolerance(problem: Problem) -> int:
    """Images that the two ways may see differently: their sums over keys are rounded differently."""
    return max(1, problem.images // 1000)


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
