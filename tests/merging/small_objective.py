"""A loss that depends on the merged tensors in a nonlinear way, in float64: what gradients by formula are compared with autograd on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from merging.coefficients import Columns, TaskVectors

SHAPES = {"visual.attn.in_proj_weight": (6, 4), "visual.attn.in_proj_bias": (6,), "visual.out.weight": (5, 6), "visual.scale": ()}
Loss = Callable[[Mapping[str, Tensor]], Tensor]


def loss_on(seed: int) -> Loss:
    """The entropy of a small network's answers to some inputs."""
    inputs = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def loss(tensors: Mapping[str, Tensor]) -> Tensor:
        packed, bias, out, scale = (tensors[name] for name in SHAPES)
        logits = scale * torch.tanh(inputs @ packed.T + bias) @ out.T
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()

    return loss


class Objective:
    """The losses in turn, one a call, each with its gradient by tensor; the last one again when there are no more."""

    def __init__(self, *losses: Loss) -> None:
        self.losses = losses
        self.calls: list[dict[str, Tensor]] = []  # the merged tensors of each

    def __call__(self, merged: Callable[[str], Tensor]) -> tuple[float, dict[str, Tensor]]:
        loss = self.losses[min(len(self.calls), len(self.losses) - 1)]
        leaves = {name: merged(name).detach().requires_grad_() for name in SHAPES}
        self.calls.append({name: leaf.detach() for name, leaf in leaves.items()})
        value = loss(leaves)
        return value.item(), dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def task_vectors(columns: Callable[[Mapping[str, object]], Columns], count: int = 3) -> TaskVectors:
    """A base and ``count`` task vectors, float64."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    return TaskVectors(
        {name: random(*shape) for name, shape in SHAPES.items()},
        {name: random(count, *shape) for name, shape in SHAPES.items()},
        columns(SHAPES),
    )


def coefficients(vectors: TaskVectors, count: int = 3) -> Tensor:
    """Random ones [K, C], some beyond [0, 1]."""
    return torch.randn(count, len(vectors.columns.names), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def merged_by_hand(vectors: TaskVectors, by: Tensor, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """θ_0 + m Σ_k λ_k τ_k, part by part and task by task, with a graph behind it."""
    merged = {}
    for name, base in vectors.base.items():
        columns = vectors.columns.names[vectors.columns.of[name]]
        own = by[:, vectors.columns.of[name]]
        size = len(base) // len(columns) if base.ndim else 1
        rows = own.repeat_interleave(size, dim=1).reshape(len(own), -1, *[1] * (base.ndim - 1)) if len(columns) > 1 else None
        tau = torch.zeros_like(base)
        for task, vector in enumerate(vectors.vectors[name]):
            tau = tau + (own[task, 0] if rows is None else rows[task]) * vector
        merged[name] = base + (tau if masks is None else masks[name] * tau)
    return merged
