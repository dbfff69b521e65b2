"""What retrieval is scored with, from the ranks of every query's positives (:mod:`engine.ranking`).

R is the number of a query's positives, counted after the query itself and its junk have left the gallery; rank_j is the 0-based
rank of its j-th positive, j = 1 ... R. Queries without positives cannot be scored: they are left out of every mean, and counted.
All scores are fractions between 0 and 1, computed in float64.
"""

# ruff: noqa: N815  mAP is written so
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from engine.ranking import Ranks

Float64 = NDArray[np.float64]
CUTOFFS = (1, 5, 10)  # the k of recall@k and mP@k


@dataclass(frozen=True, eq=False)
class Scores:
    """What is known of every kind of retrieval.

    ``mAP_stderr`` is the standard error of mAP over queries, the standard deviation of ``average_precision`` divided by the
    root of their number: mAP +- 1.96 times that is a 95 % interval. NaN for fewer than two queries.
    ``average_precision`` is each query's, float64 [Q], NaN for those without positives.
    """

    n_queries: int  # all of them
    n_without_positives: int
    average_precision: Float64
    mAP: float
    mAP_stderr: float


@dataclass(frozen=True, eq=False)
class RetrievalScores(Scores):
    """Means over the queries that have positives."""

    mAP_at_R: float
    precision_at_R: float
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float


@dataclass(frozen=True, eq=False)
class RevisitedScores(Scores):
    """Means over the queries that have positives under one protocol of revisited Oxford and Paris."""

    mP_at_1: float
    mP_at_5: float
    mP_at_10: float


@dataclass(frozen=True, eq=False)
class _Scored:
    """The n queries that have positives, and all of these P positives in flat arrays, query after query."""

    rank: Float64  # [P]
    j: Float64  # [P]: 1 ... R of each query
    R: Float64  # [n]
    first: NDArray[np.int64]  # [n]: where each query's positives start

    @classmethod
    def of(cls, ranks: Ranks) -> _Scored:
        counts = ranks.counts[ranks.counts > 0]
        first = np.cumsum(counts) - counts
        j = np.arange(1, len(ranks.values) + 1) - np.repeat(first, counts)
        return cls(ranks.values.astype(np.float64), j.astype(np.float64), counts.astype(np.float64), first)

    def sums(self, terms: NDArray[Any]) -> Float64:
        """The sum over its positives, of ``terms`` [P], for each query [n]."""
        sums: Float64 = np.add.reduceat(terms, self.first, dtype=np.float64)
        return sums

    def within(self, depth: Float64) -> NDArray[np.bool_]:
        """Which positives [P] are among the first ``depth`` [n] items of their query."""
        return self.rank < np.repeat(depth, self.R.astype(np.int64))


def retrieval_scores(ranks: Ranks) -> RetrievalScores:
    """Scores of the full ranking, and of its first R or k items::

        AP           = (1/R) sum_j j / (rank_j + 1)                  mAP is its mean
        AP@R         = (1/R) sum_{j: rank_j < R} j / (rank_j + 1)    Musgrave et al., A Metric Learning Reality Check, ECCV 2020
        precision@R  = (1/R) #{j: rank_j < R}                        R-precision
        recall@k     = 1 if rank_1 < k else 0                        whether one of the first k is relevant, k = 1, 5, 10

    Raises:
        UserError: if no query has a positive.
    """
    return RetrievalScores(**_means(ranks, _retrieval))


def revisited_scores(ranks: Ranks) -> RevisitedScores:
    """Scores of revisited Oxford and Paris (Radenovic et al., CVPR 2018)::

        AP   = (1/R) sum_j (before_j + after_j) / 2               area under the precision-recall curve, by trapezoids
               before_j = (j - 1) / rank_j, or 1 if rank_j = 0;   after_j = j / (rank_j + 1)
        P@k  = #{j: rank_j < k'} / k'                             k' = min(k, rank_R + 1): nothing is found behind the last positive

    Raises:
        UserError: if no query has a positive.
    """
    return RevisitedScores(**_means(ranks, _revisited))


def _retrieval(scored: _Scored) -> dict[str, Float64]:
    precision = scored.j / (scored.rank + 1)
    early = scored.within(scored.R)
    best = scored.rank[scored.first]
    return {
        "mAP": scored.sums(precision) / scored.R,
        "mAP_at_R": scored.sums(precision * early) / scored.R,
        "precision_at_R": scored.sums(early) / scored.R,
        **{f"recall_at_{k}": (best < k).astype(np.float64) for k in CUTOFFS},
    }


def _revisited(scored: _Scored) -> dict[str, Float64]:
    before = np.where(scored.rank == 0, 1, (scored.j - 1) / np.maximum(scored.rank, 1))
    after = scored.j / (scored.rank + 1)
    last = scored.rank[scored.first + scored.R.astype(np.int64) - 1]
    depths = {k: np.minimum(k, last + 1) for k in CUTOFFS}
    return {
        "mAP": scored.sums((before + after) / 2) / scored.R,
        **{f"mP_at_{k}": scored.sums(scored.within(depth)) / depth for k, depth in depths.items()},
    }


def _means(ranks: Ranks, measures: Callable[[_Scored], dict[str, Float64]]) -> dict[str, Any]:
    """The fields of scores: the mean of each measure over the queries that have positives, and how many have not."""
    scorable = ranks.counts > 0
    if not scorable.any():
        raise UserError(f"None of the {len(ranks)} queries has a positive in the gallery, so there is nothing to score.")
    parts = [measures(_Scored.of(part)) for part in ranks.parts()]
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    average_precision = np.full(len(ranks), np.nan)
    average_precision[scorable] = each["mAP"]
    n = int(scorable.sum())
    return {
        "n_queries": len(ranks),
        "n_without_positives": len(ranks) - n,
        "average_precision": average_precision,
        "mAP_stderr": float(each["mAP"].std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
        **{name: float(values.mean()) for name, values in each.items()},
    }
