"""Averages of the models' weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from common.errors import UserError
from merging.method import MergeTensor, of_weights
from merging.options import MergeOptions
from merging.weights import Pool


def simple_average(pool: Pool, options: MergeOptions) -> MergeTensor:
    """θ = 1/K Σ_k θ_k; the base takes no part. Source: model soups (Wortsman et al., ICML 2022), uniform soup."""
    return _average(pool, [1 / len(pool.models)] * len(pool.models))


def weighted_average(pool: Pool, options: MergeOptions) -> MergeTensor:
    """θ = Σ_k w_k θ_k, or the same divided by Σ_k w_k with ``normalize``.

    Raises UserError unless there is one finite weight a model, or when they sum to 0 and are to be normalised. Source: Matena and
    Raffel, NeurIPS 2022 (isotropic merging).
    """
    weights, count = options.weights, len(pool.models)
    if weights is None or len(weights) != count:
        raise UserError(f"--weights must give one number for each of the {count} models; it gives {len(weights or ())}.")
    if not all(map(math.isfinite, weights)):
        raise UserError("--weights must be finite numbers.")
    if not options.normalize:
        return _average(pool, weights)
    total = math.fsum(weights)
    if total == 0:
        raise UserError("--weights sum to 0 and cannot be normalised; choose others, or keep them as they are with --no-normalize.")
    return _average(pool, [weight / total for weight in weights])


def _average(pool: Pool, weights: Sequence[float]) -> MergeTensor:
    """Σ_k w_k θ_k."""

    def merge(name: str, part: slice) -> Tensor:
        first, *others = zip(weights, pool.models, strict=True)
        merged = first[1].read(name, part).float() * first[0]
        for weight, model in others:
            merged.add_(model.read(name, part), alpha=weight)
        return merged

    return lambda name: pool.by_parts(name, lambda part: merge(name, part))


METHODS = (
    of_weights(
        "simple_average",
        "the mean of the models' weights",
        "Wortsman et al., ICML 2022 (arXiv:2203.05482)",
        merged=simple_average,
    ),
    of_weights(
        "weighted_average",
        "a mean of the models' weights in which each model counts as much as you say",
        "Matena and Raffel, NeurIPS 2022 (arXiv:2111.09832)",
        reads=("weights", "normalize"),
        merged=weighted_average,
        symmetric=False,
    ),
)
