"""Isotropic merging: every direction of the merged task vector gets the same strength."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.method import MergeTensor, each_task_vector, of_task_vector, total
from merging.methods.singular import by_matrix, polar, triplets
from merging.options import MergeOptions
from merging.weights import Pool

PAPER = "Marczak et al., ICML 2025 (arXiv:2502.04959)"


def iso_c(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = mean(s) U V^T with Σ_k τ_k = U diag(s) V^T, for every matrix; other tensors get the mean task vector.

    The mean is over all min(m, n) singular values. Directions that the sum has not (s = 0) stay out; the released code adds arbitrary
    ones. Equal models are not merged to themselves, for their spectrum is flattened. Source: Marczak et al., ICML 2025 (Iso-C).
    """

    def merge(name: str) -> Tensor:
        summed = total(each_task_vector(pool, name, device=options.device))
        u, s, v = triplets(summed)
        return (u @ v.T).mul_(s.sum() / min(summed.shape)).float().cpu()

    return by_matrix(pool, options, merge)


def iso_cts(pool: Pool, options: MergeOptions) -> MergeTensor:
    """Iso-C with the weakest directions of the sum replaced by directions of each task; other tensors get the mean task vector.

    Of r = min(m, n) directions each task gives q, the strongest of τ_k - U U^T τ_k, which is what the sum's strongest r - K q
    directions U leave of it; q = round((r - floor(r f)) / K) with f = ``common_space_fraction``. All r left vectors together are made
    orthonormal (U_* is their polar factor), so are the right ones, and τ = mean(s) U_* V_*^T. Source: Marczak et al., ICML 2025 (Iso-CTS).
    """

    def merge(name: str) -> Tensor:
        summed = total(each_task_vector(pool, name, device=options.device))
        own = directions_per_task(min(summed.shape), len(pool.models), options.common_space_fraction)
        common = triplets(summed, min(summed.shape) - own * len(pool.models))
        residuals = (tau - common.u @ (common.u.T @ tau.double()) for tau in each_task_vector(pool, name, device=options.device))
        found = [*(triplets(residual, own) for residual in residuals), common] if own else [common]
        u, s, v = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
        return (polar(u) @ polar(v).T).mul_(s.sum() / min(summed.shape)).float().cpu()

    return by_matrix(pool, options, merge)


def directions_per_task(rank: int, tasks: int, common_space_fraction: float) -> int:
    """How many of a matrix's ``rank`` directions each of the tasks gives in Iso-CTS."""
    return min(round((rank - int(rank * common_space_fraction)) / tasks), rank // tasks)


METHODS = (
    of_task_vector(
        "iso_c",
        "the summed task vector with all singular values made equal",
        PAPER,
        task_vector=iso_c,
        default_scaling=1.0,
        reads=("device",),
    ),
    of_task_vector(
        "iso_cts",
        "as iso_c, with the weakest common directions replaced by each task's own",
        PAPER,
        task_vector=iso_cts,
        default_scaling=1.0,
        reads=("common_space_fraction", "device"),
    ),
)
