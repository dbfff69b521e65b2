"""WUDI: the merged task vector that interferes least with every task."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.method import MergeTensor, each_task_vector, of_task_vector, total
from merging.methods.singular import by_matrix
from merging.options import MergeOptions
from merging.weights import Pool


def wudi(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ minimises Σ_k ||(τ - τ_k) τ_k^T||_F^2 / ||τ_k||_F^2 for every matrix; other tensors get the mean task vector.

    From Σ_k τ_k by ``iterations`` steps of Adam, as published, which stop before the minimum; ``solver`` exact goes to it. The loss is
    quadratic, with gradient 2 (G + δ S) at Σ_k τ_k + δ (see :func:`interference`), so that a step is one product of matrices however
    many the tasks. A zero task vector is left out. Source: Cheng et al., ICML 2025.
    """

    def merge(name: str) -> Tensor:
        summed = total(each_task_vector(pool, name, device=options.device))
        s, g = interference(pool, name, summed)
        return (summed + (exact(s, g) if options.solver == "exact" else adam(s, g, options))).cpu()

    return by_matrix(pool, options, merge)


def interference(pool: Pool, name: str, summed: Tensor) -> tuple[Tensor, Tensor]:
    """S = Σ_k τ_k^T τ_k / ||τ_k||^2 [n, n] and G = Σ_k (τ - τ_k) τ_k^T τ_k / ||τ_k||^2 [m, n] at τ = Σ_k τ_k [m, n], in float64.

    Where G is 0, single precision would leave rounding, and Adam, which makes every gradient a step of the same size, would follow it.
    """
    start = summed.double()
    s, g = start.new_zeros(len(start.T), len(start.T)), torch.zeros_like(start)
    for vector in each_task_vector(pool, name, device=str(summed.device)):
        tau = vector.double()
        norm = tau.square().sum()
        if norm > 0:
            inner = (tau.T @ tau).div_(norm)
            s += inner
            g.addmm_(start - tau, inner)
    return s, g


def adam(s: Tensor, g: Tensor, options: MergeOptions) -> Tensor:
    """δ after ``iterations`` steps of Adam from 0, in float32."""
    s, g = s.float(), g.float()
    delta = torch.nn.Parameter(torch.zeros_like(g))
    optimizer = torch.optim.Adam([delta], lr=options.learning_rate)
    for _ in range(options.iterations):
        delta.grad = torch.addmm(g, delta.detach(), s, beta=2, alpha=2)
        optimizer.step()
    return delta.detach()


def exact(s: Tensor, g: Tensor) -> Tensor:
    """δ = -G S^+, the minimiser; where there are several, the smallest."""
    tolerance = len(s) * torch.finfo(torch.float32).eps
    return -(g @ torch.linalg.pinv(s, rtol=tolerance, hermitian=True)).float()


METHOD = of_task_vector(
    "wudi",
    "the task vector that interferes least with the tasks, by gradient descent without data",
    "Cheng et al., ICML 2025 (arXiv:2503.08099)",
    task_vector=wudi,
    default_scaling=1.0,
    reads=("solver", "iterations", "learning_rate", "device"),
)
