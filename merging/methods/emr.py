"""EMR: elect one task vector for all tasks, then mask and rescale it for each."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.method import MergeTensor, ModelTensor, by_element, of_task_vector, total
from merging.options import MergeOptions
from merging.weights import Pool


def elected(vectors: Tensor) -> Tensor:
    """τ_uni of the columns of [K, n]: the sign of Σ_k τ_k, and the largest magnitude among the entries of that sign. [n].

    0 where the sum is 0. Source: Huang et al., NeurIPS 2024 (elect).
    """
    sign = total(vectors).sign_()
    return (vectors * sign).clamp_(min=0).amax(0).mul_(sign)


def agrees(vector: Tensor, shared: Tensor) -> Tensor:
    """The mask m_k: where τ_k has the sign of τ_uni, and both have one."""
    return vector * shared.sign() > 0


def unified(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = τ_uni, the task vector that all tasks share."""
    return by_element(pool, elected)


def per_task(pool: Pool, options: MergeOptions) -> ModelTensor:
    """τ = λ_k m_k τ_uni for task k, with the mask m_k of :func:`agrees` and the rescaler λ_k.

    Source: Huang et al., NeurIPS 2024 (mask and rescale).
    """
    scales = rescalers(pool)

    def merge(model: int, vectors: Tensor) -> Tensor:
        shared = elected(vectors)
        return shared.mul_(agrees(vectors[model], shared)).mul_(scales[model])

    return lambda model, name: by_element(pool, lambda vectors: merge(model, vectors))(name)


def rescalers(pool: Pool) -> list[float]:
    """λ_k = sum |τ_k| / sum |m_k τ_uni| over all merged weights; 0 where the mask is empty.

    This is the paper's formula; the released code adds the means over tensors instead, so that a bias counts as much as a matrix.
    """
    own, shared = torch.zeros(2, len(pool.models), dtype=torch.float64)
    for name in pool.merged:
        for part in pool.parts(name):
            vectors = pool.task_vectors(name, part)
            unified_part = elected(vectors)
            own += vectors.abs().sum(1, dtype=torch.float64)
            shared += unified_part.abs().mul(agrees(vectors, unified_part)).sum(1, dtype=torch.float64)
    return torch.where(shared > 0, own / shared, 0.0).tolist()


METHOD = of_task_vector(
    "emr",
    "one elected task vector; for each task masked to its own signs and rescaled",
    "Huang et al., NeurIPS 2024 (arXiv:2405.17461)",
    task_vector=unified,
    default_scaling=1.0,
    per_model=per_task,
)
