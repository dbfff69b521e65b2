"""TALL masks and consensus: which weights of the summed task vector a task uses, and which enough tasks use."""

from __future__ import annotations

from torch import Tensor

from merging.method import MergeTensor, ModelTensor, by_element, of_task_vector, total
from merging.options import MergeOptions
from merging.weights import Pool


def masks(vectors: Tensor, summed: Tensor, threshold: float) -> Tensor:
    """m_k = |τ_k| > λ |τ_sum - τ_k|, [K, n] bool: where task k is nearer to the sum than the base is, in units of λ.

    Source: Wang et al., ICML 2024 (TALL-masks), where it reads |θ_0 - θ_k| > λ |θ_MTL - θ_k|.
    """
    return vectors.abs() > (summed - vectors).abs_().mul_(threshold)


def consensus(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = τ_sum where at least ``min_tasks`` masks hold, else 0: weights that no or one task uses stay at the base.

    The masks are those of the unscaled τ_sum = Σ_k τ_k. Source: Wang et al., ICML 2024 (Consensus Merging). The paper tunes the
    scaling on validation images; the default is that of task arithmetic.
    """

    def merge(vectors: Tensor) -> Tensor:
        summed = total(vectors)
        return summed.mul_(masks(vectors, summed, options.mask_threshold).sum(0) >= options.min_tasks)

    return by_element(pool, merge)


def per_task(pool: Pool, options: MergeOptions) -> ModelTensor:
    """τ = m_k τ_sum for task k, with scaling 1. Source: Wang et al., ICML 2024 (TALL-masks + task arithmetic)."""

    def merge(model: int, vectors: Tensor) -> Tensor:
        summed = total(vectors)
        return masks(vectors[model], summed, options.mask_threshold).mul(summed)

    return lambda model, name: by_element(pool, lambda vectors: merge(model, vectors))(name)


METHOD = of_task_vector(
    "tall_mask",
    "the summed task vector where enough tasks use it (consensus), or for each task where that task does",
    "Wang et al., ICML 2024 (arXiv:2405.07813)",
    task_vector=consensus,
    default_scaling=0.3,
    per_model=per_task,
    reads=("mask_threshold", "min_tasks"),
)
