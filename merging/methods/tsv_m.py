"""TSV-M: the strongest singular vectors of every task, made orthogonal to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.method import MergeTensor, each_task_vector, of_task_vector
from merging.methods.singular import by_matrix, polar, triplets
from merging.options import MergeOptions
from merging.weights import Pool


def tsv_m(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = U_* diag(s) V_*^T for every matrix; other tensors get the mean task vector.

    Each τ_k [m, n] gives its floor(min(m, n) / K) largest singular triplets (at least one). Side by side they are U, s and V, and U_*, V_*
    are the nearest matrices with orthonormal columns (Procrustes: the polar factors), so that no task's directions interfere with
    another's. K equal models merge to their common task vector, cut to that rank. Source: Gargiulo et al., CVPR 2025, algorithm 1
    (TSV-Merge).
    """

    def merge(name: str) -> Tensor:
        most = max(1, min(pool.reference.specs[name].shape) // len(pool.models))
        found = [triplets(tau, most) for tau in each_task_vector(pool, name, device=options.device)]
        u, s, v = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
        return (polar(u) * s @ polar(v).T).float().cpu()

    return by_matrix(pool, options, merge)


METHOD = of_task_vector(
    "tsv_m",
    "the strongest singular vectors of every task, made orthogonal",
    "Gargiulo et al., CVPR 2025 (arXiv:2412.00081)",
    task_vector=tsv_m,
    default_scaling=1.0,
    reads=("device",),
)
