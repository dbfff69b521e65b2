"""Time and memory of scoring retrieval in blocks, against the whole matrix of similarities and a sort for each query.

    python -m benchmarks.retrieval                                        # 50,000 x 50,000 in blocks: minutes on two cores
    python -m benchmarks.retrieval --queries 5000 --gallery 20000 --compare 2000

First both ways at a size (`--compare`) whose matrix fits, with the same scores asserted, then the blocks alone at the full one. Each
run has a process to itself, so peak memory is its own; `start` is what the process holds before, its libraries and the features.
Features are drawn around the means of their classes. Where there are as many queries as gallery items they are the same items, each
of which is left out of its own gallery.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arguments import positive_int
from common.cli import Parser, run
from common.provenance import peak_memory_mib

CUTOFFS = (1, 5, 10)
TOLERANCE = 1e-5  # of a score: products rounded otherwise exchange items that are all but equally similar


@dataclass(frozen=True)
class Problem:
    """What is ranked."""

    queries: int
    gallery: int
    dim: int
    classes: int
    device: str
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a run went: scores are mAP, mAP@R, R-precision and recall at 1, 5 and 10."""

    seconds: float
    start_mib: int
    peak_mib: int
    scores: list[float]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--queries", type=positive_int, default=50_000, help="Q")
    parser.add_argument("--gallery", type=positive_int, default=50_000, help="G; as many as queries: the queries, each left out of its own")
    parser.add_argument("--dim", type=positive_int, default=512, help="D, that of ViT-B/32")
    parser.add_argument("--classes", type=positive_int, default=1000, help="each item has one; those of the query's class are relevant")
    parser.add_argument("--compare", type=positive_int, default=5000, help="queries and gallery items of the comparison, at most Q and G")
    parser.add_argument("--repeats", type=positive_int, default=3, help="runs of each way of the comparison, in turn; the median is shown")
    parser.add_argument("--threads", type=positive_int, default=multiprocessing.cpu_count(), help="of PyTorch and of the sort")
    parser.add_argument("--device", default="cpu", help="where the blocks are ranked; the whole matrix stays on the CPU")
    return parser.parse_args()


def draw(problem: Problem) -> tuple[Any, Any, NDArray[np.int64], NDArray[np.int64]]:
    """Unit features of queries and gallery, and their classes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    means = torch.randn(problem.classes, problem.dim, generator=generator)

    def side(count: int) -> tuple[Any, NDArray[np.int64]]:
        labels = torch.randint(problem.classes, (count,), generator=generator)
        rows = torch.randn(count, problem.dim, generator=generator).mul_(3).add_(means[labels])
        return torch.nn.functional.normalize(rows, dim=1), labels.numpy()

    gallery, labels = side(problem.gallery)
    query, query_labels = (gallery, labels) if problem.queries == problem.gallery else side(problem.queries)
    return query, gallery, query_labels, labels


def in_blocks(problem: Problem) -> Outcome:
    """The package's way."""
    from datasets.retrieval.relevance import Relevance
    from engine.ranking import rank_positives
    from engine.retrieval_scores import retrieval_scores

    query, gallery, query_labels, labels = draw(problem)
    start, started = peak_memory_mib()["process"], time.perf_counter()
    relevance = Relevance.by_label(query_labels, labels, leave_one_out=query is gallery)
    scores = retrieval_scores(rank_positives(query, gallery, {"": relevance}, problem.device)[""])
    seconds = time.perf_counter() - started
    recall = (scores.recall_at_1, scores.recall_at_5, scores.recall_at_10)
    values = [scores.mAP, scores.mAP_at_R, scores.precision_at_R, *recall]
    return Outcome(seconds, start, peak_memory_mib()["process"], values)


def materialised(problem: Problem) -> Outcome:
    """All similarities at once, then for each query one sort and its scores; released code sorts three times."""
    query, gallery, query_labels, labels = draw(problem)
    start, started = peak_memory_mib()["process"], time.perf_counter()
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
    seconds = time.perf_counter() - started
    return Outcome(seconds, start, peak_memory_mib()["process"], np.mean(each, axis=0).tolist())


def scores_of(relevant: NDArray[np.bool_]) -> list[float]:
    """Scores of one ranking, which says of each item from the first to the last whether it is relevant."""
    found = np.cumsum(relevant)
    precisions = relevant * found / np.arange(1, len(relevant) + 1)
    R = int(found[-1])
    return [precisions.sum() / R, precisions[:R].sum() / R, found[R - 1] / R, *(float(relevant[:k].any()) for k in CUTOFFS)]


def alone(way: Any, problem: Problem) -> Outcome:
    """Run ``way`` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=use, initargs=(problem.threads,)) as pool:
        return pool.submit(way, problem).result()


def use(threads: int) -> None:
    """Let PyTorch work in so many threads."""
    import torch

    torch.set_num_threads(threads)


def show(name: str, problem: Problem, outcomes: list[Outcome]) -> float:
    """One line of the table; gives the median of the seconds."""
    seconds = statistics.median(outcome.seconds for outcome in outcomes)
    peak, start = (max(getattr(outcome, of) for outcome in outcomes) for of in ("peak_mib", "start_mib"))
    size = f"{problem.queries:,} x {problem.gallery:,}"
    print(f"{name:14}{size:>20}{seconds:10.2f}{problem.queries / seconds:12.0f}{start:12}{peak:12}", end="")
    print(f"{100 * outcomes[0].scores[0]:10.3f}", flush=True)
    return seconds


def main() -> None:
    """The comparison, then the full size."""
    args = parse_arguments()
    full = Problem(args.queries, args.gallery, args.dim, args.classes, args.device, args.threads)
    few = replace(full, queries=min(args.compare, args.queries), gallery=min(args.compare, args.gallery))
    print(f"D = {args.dim}, {args.classes} classes, float32, {args.threads} threads, {args.device}\n")
    print(f"{'way':14}{'Q x G':>20}{'seconds':>10}{'queries/s':>12}{'start MiB':>12}{'peak MiB':>12}{'mAP':>10}", flush=True)
    runs = [(alone(in_blocks, few), alone(materialised, few)) for _ in range(args.repeats)]
    blocks, whole = (list(of) for of in zip(*runs, strict=True))
    difference = float(np.abs(np.subtract(blocks[0].scores, whole[0].scores)).max())
    assert difference < TOLERANCE, f"scores differ by {difference}"
    ratio = show("materialised", few, whole) / show("in blocks", few, blocks)
    if full != few:
        show("in blocks", full, [alone(in_blocks, full)])
    print(f"\nin blocks is {ratio:.1f} times faster at the size that both can; greatest difference of a score {difference:.1e}")
    whole_mib = full.queries * full.gallery * 4 / 2**20
    print(f"the whole matrix of {full.queries:,} x {full.gallery:,} similarities would take {whole_mib:,.0f} MiB")


if __name__ == "__main__":
    run(main)
