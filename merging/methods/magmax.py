"""MagMax: every weight goes where it was moved furthest."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.method import MergeTensor, by_element, of_task_vector
from merging.options import MergeOptions
from merging.weights import Pool


def largest(vectors: Tensor) -> Tensor:
    """Of each column of [K, n] the entry of largest magnitude, [n]; the later of equally large ones.

    Source: Marczak et al., ECCV 2024 (maximum magnitude selection); that the later task wins is how the benchmarks have it.
    """
    chosen = vectors[0].clone()
    for vector in vectors[1:]:
        torch.where(vector.abs() >= chosen.abs(), vector, chosen, out=chosen)
    return chosen


def magmax(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = τ_k of the k with the largest |τ_k|, weight by weight."""
    return by_element(pool, largest)


METHOD = of_task_vector(
    "magmax",
    "each weight's task vector of largest magnitude; the later model wins ties",
    "Marczak et al., ECCV 2024 (arXiv:2407.06322)",
    task_vector=magmax,
    default_scaling=0.5,
    symmetric=False,
)
