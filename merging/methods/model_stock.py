"""Model Stock: the better the task vectors agree, the further towards their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError
from merging.method import MergeTensor, inner_products, of_task_vector, total
from merging.options import MergeOptions
from merging.weights import Pool


def model_stock(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = t/K Σ_k τ_k with t = K c / (1 + (K - 1) c), c the mean cosine of two task vectors, tensor by tensor.

    t goes from 0 (orthogonal) to 1 (equal). c is taken as 0 where it is negative, which the paper's geometry does not know: t would go to
    minus infinity. The cosine with a zero vector is 0. Raises UserError for fewer than two models. Source: Jang et al., ECCV
    2024, the interpolation ratio for N models.
    """
    if len(pool.models) < 2:
        raise UserError("model_stock compares models with each other; give at least two.")

    def merge(name: str) -> Tensor:
        factor = interpolation(inner_products(pool, name, pool.task_vectors)) / len(pool.models)
        return pool.by_parts(name, lambda part: total(pool.task_vectors(name, part)).mul_(factor))

    return merge


def interpolation(products: Tensor) -> float:
    """t of :func:`model_stock` from the inner products [K, K]."""
    count = len(products)
    norms = products.diagonal().sqrt()
    cosines = torch.nan_to_num(products / (norms[:, None] * norms), nan=0.0)
    mean = float((cosines.sum() - cosines.trace()) / (count * (count - 1)))
    mean = max(mean, 0.0)
    return count * mean / (1 + (count - 1) * mean)


METHOD = of_task_vector(
    "model_stock",
    "the mean task vector, shortened tensor by tensor as the task vectors disagree",
    "Jang et al., ECCV 2024 (arXiv:2403.19522)",
    task_vector=model_stock,
    default_scaling=1.0,
)
