"""TIES: trim each task vector, elect a sign for each weight, merge what agrees with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from merging.method import MergeTensor, Vectors, of_task_vector, total
from merging.methods.thresholds import kept_from, parts_of
from merging.options import MergeFunc, MergeOptions
from merging.weights import Pool


def ties(pool: Pool, options: MergeOptions) -> MergeTensor:
    """Trim, elect, merge, over the whole model or, with ``scope`` tensor, over each tensor as if it were the model.

    The paper merges by ``mean`` with a scaling near 1; the default is the later benchmarks' ``sum`` with 0.3. Source: Yadav et al.,
    NeurIPS 2023, algorithm 1.
    """
    return ties_of(pool, pool.task_vectors, options)


def ties_of(pool: Pool, vectors: Vectors, options: MergeOptions) -> MergeTensor:
    """TIES of task vectors that are given part by part."""
    if options.scope == "model":
        return _ties_over(pool, pool.merged, vectors, options)
    return lambda name: _ties_over(pool, (name,), vectors, options)(name)


def _ties_over(pool: Pool, names: Sequence[str], vectors: Vectors, options: MergeOptions) -> MergeTensor:
    least = kept_from(pool, names, vectors, options.density)

    def trimmed(name: str, part: slice) -> Tensor:
        return trim(vectors(name, part), least)

    @cache
    def majority() -> int:
        balance = sum(int(total(part).sign_().sum()) for part in parts_of(pool, names, trimmed))
        return (balance > 0) - (balance < 0)

    def merge(name: str) -> Tensor:
        return pool.by_parts(name, lambda part: elect_and_merge(trimmed(name, part), options.merge_func, majority))

    return merge


def trim(vectors: Tensor, least: Tensor) -> Tensor:
    """The task vectors [K, n], in place, with 0 where the magnitude is not at least that of ``least`` [K].

    Hard shrinkage keeps what is above a bound: what is above the next smaller number is at least ``least``.
    """
    below = torch.nextafter(least, torch.zeros(()))
    for vector, bound in zip(vectors, below.tolist(), strict=True):
        vector.copy_(F.hardshrink(vector, bound))
    return vectors


def elect_and_merge(trimmed: Tensor, merge_func: MergeFunc, majority: Callable[[], int]) -> Tensor:
    """What of the trimmed task vectors [K, n] has the elected sign, merged to [n].

    The elected sign is that of Σ_k τ_k; where non-zero entries cancel exactly, the ``majority`` of the signs elected anywhere (+1 or
    -1; 0, if there are as many of both, elects the negative entries). It costs a pass over the models and is asked for only then.
    ``sum`` adds the entries of that sign, ``mean`` divides by their number, ``max`` takes the largest.
    """
    join, sign = _JOIN[merge_func], total(trimmed).sign_()
    positive = join(vector.clamp(min=0) for vector in trimmed)
    cancelled = (sign == 0) & (positive > 0)
    if cancelled.any():
        sign[cancelled] = majority()
    negative = join(vector.clamp(max=0) for vector in trimmed)
    return torch.where(sign > 0, positive, negative.mul_(sign.abs()) if merge_func == "max" else negative)


def _mean(kept: Iterable[Tensor]) -> Tensor:
    """The mean over what is not 0."""
    together = total(torch.stack([vector, vector != 0]) for vector in kept)
    return together[0] / together[1].clamp_(min=1)


def _furthest(kept: Iterable[Tensor]) -> Tensor:
    """The entry of largest magnitude, where all have one sign."""
    return reduce(lambda one, other: torch.where(other.abs() > one.abs(), other, one), kept)


_JOIN: dict[MergeFunc, Callable[[Iterable[Tensor]], Tensor]] = {"sum": total, "mean": _mean, "max": _furthest}

METHOD = of_task_vector(
    "ties",
    "the largest entries of each task vector, where they agree on the sign",
    "Yadav et al., NeurIPS 2023 (arXiv:2306.01708)",
    task_vector=ties,
    default_scaling=0.3,
    reads=("density", "merge_func", "scope"),
)
