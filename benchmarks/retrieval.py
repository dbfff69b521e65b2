"""Time and memory of scoring retrieval in blocks, against the whole matrix of similarities and a sort for each query.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --queries 5000 --gallery 20000
    python -m benchmarks.retrieval --queries 50000 --gallery 50000 --ours-only      # a matrix of 9.5 GB: minutes on two cores

Features are drawn around the means of their classes. Where there are as many queries as gallery items they are the same items, each
of which is left out of its own gallery.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.work import Way, Work, add_measuring_arguments, within
from common.arguments import positive_int
from common.cli import Parser

OUR_LIBRARIES = ("datasets.retrieval.relevance", "engine.ranking", "engine.retrieval_scores")
CUTOFFS = (1, 5, 10)
TOLERANCE = 1e-5  # of a score: products rounded otherwise exchange items that are all but equally similar


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--queries", type=positive_int, default=5000, help="Q")
    parser.add_argument("--gallery", type=positive_int, default=5000, help="G; as many as queries: the queries, each left out of its own")
    parser.add_argument("--dim", type=positive_int, default=512, help="D, that of ViT-B/32")
    parser.add_argument("--classes", type=positive_int, default=1000, help="each item has one; those of the query's class are relevant")
    parser.add_argument("--device", default="cpu", help="where the blocks are ranked; the whole matrix stays on the CPU")
    parser.add_argument("--ours-only", action="store_true", help="leave the plain way out, whose matrix takes Q x G x 4 bytes")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """The row."""
    name = f"rank and score {args.queries:,} x {args.gallery:,}, D = {args.dim}" + ", leave-one-out" * (args.queries == args.gallery)
    plain, ours = partial(prepare, args, materialised), partial(prepare, args, in_blocks)
    if args.ours_only:
        yield Work(name, "", None, ours, lambda _, scores: f"mAP {100 * scores[0]:.2f}", args.repeats, first_counts=True)
    else:
        yield Work(name, "the whole matrix, a sort a query", plain, ours, partial(within, TOLERANCE, "scores"), args.repeats)


def prepare(args: argparse.Namespace, way: Any) -> Way:
    """Features and classes, drawn; ``way`` gives mAP, mAP@R, R-precision and recall at 1, 5 and 10."""
    import torch

    for library in OUR_LIBRARIES:
        import_module(library)  # before the clock starts
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(args.classes, args.dim, generator=generator)

    def side(count: int) -> tuple[Any, Any]:
        labels = torch.randint(args.classes, (count,), generator=generator)
        rows = torch.randn(count, args.dim, generator=generator).mul_(3).add_(means[labels])
        return torch.nn.functional.normalize(rows, dim=1), labels.numpy()

    gallery, labels = side(args.gallery)
    query, query_labels = (gallery, labels) if args.queries == args.gallery else side(args.queries)
    return partial(way, query, gallery, query_labels, labels, args.device)


def in_blocks(query: Any, gallery: Any, query_labels: Any, labels: Any, device: str) -> list[float]:
    """The package's way."""
    from datasets.retrieval.relevance import Relevance
    from engine.ranking import rank_positives
    from engine.retrieval_scores import retrieval_scores

    relevance = Relevance.by_label(query_labels, labels, leave_one_out=query is gallery)
    scores = retrieval_scores(rank_positives(query, gallery, {"": relevance}, device)[""])
    recall = (scores.recall_at_1, scores.recall_at_5, scores.recall_at_10)
    return [scores.mAP, scores.mAP_at_R, scores.precision_at_R, *recall]


def materialised(query: Any, gallery: Any, query_labels: Any, labels: Any, device: str) -> Any:
    """All similarities at once, then for each query one sort and its scores; released code sorts three times."""
    import numpy as np

    similarities = query @ gallery.T
    itself = query is gallery
    if itself:
        similarities.fill_diagonal_(-np.inf)
    each = []
    for number, row in enumerate(similarities):
        relevant = labels == query_labels[number]
        relevant[number : number + itself] = False
        if relevant.any():
            each.append(scores_of(relevant[row.argsort(descending=True, stable=True).numpy()]))
    return np.mean(each, axis=0)


def scores_of(relevant: Any) -> list[float]:
    """Scores of one ranking, which says of each item from the first to the last whether it is relevant."""
    import numpy as np

    found = np.cumsum(relevant)
    precisions = relevant * found / np.arange(1, len(relevant) + 1)
    R = int(found[-1])
    return [precisions.sum() / R, precisions[:R].sum() / R, found[R - 1] / R, *(float(relevant[:k].any()) for k in CUTOFFS)]


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
