"""A linear layer with weights of its own for every image, made on the way and not kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIXED = 1 << 25  # numbers in the mixed weights that exist at a time: 128 MiB


class RoutedLinear(nn.Module):
    """y = W(w) x + b(w) with W(w) = W_0 + Σ_k w_k ΔW_k and b alike, where w is an image's row of the router's weights.

    ``weight`` [K + 1, out, in] and ``bias`` [K + 1, out] hold the base's tensor and below it the K task vectors.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """[B, T, out] of x [B, T, in] and ``weights`` [B, K], or [1, K] for all images; in the precision of autocast, where it is on."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        coefficients = F.pad(weights, (1, 0), value=1.0)  # of the base, 1
        rows = x.to(dtype).reshape(len(weights), -1, x.shape[-1])
        with torch.autocast(kind, enabled=False):
            y = linear_per_image(rows, coefficients, self.weight) + (coefficients @ self.bias)[:, None].to(dtype)
        return y.view(*x.shape[:-1], -1)


def linear_per_image(x: Tensor, coefficients: Tensor, experts: Tensor) -> Tensor:
    """y_b = x_b (Σ_k c_bk E_k)ᵀ: [B, T, out] of x [B, T, in], c [B, E] and E [E, out, in].

    The weights of some images are made with one matrix product and multiplied with their tokens in another: 2 B in out (E + T)
    operations, where every expert on every token, Σ_k c_bk (E_k x_b), takes 2 B in out E T. With E = 9 experts and T = 50 tokens (a
    ViT-B/32 and eight tasks) that is 59 to 450; the latter is less for a single token only, which no block of a vision transformer has.
    The gradient makes the weights again instead of keeping B of them. Mixing is done in the experts' precision, the rest in that of x.
    """
    return _PerImage.apply(x, coefficients, experts)  # type: ignore[no-any-return, no-untyped-call]


class _PerImage(torch.autograd.Function):
    """Gradients with respect to x and c; the experts are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor, experts: Tensor) -> Tensor:
        ctx.save_for_backward(x, coefficients, experts)
        return torch.cat([torch.bmm(x[some], own.mT) for some, own in _mixed(coefficients, experts, x.dtype)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """dL/dx_b = g_b W_b; dL/dc_bk = <g_bᵀ x_b, E_k>."""
        x, coefficients, experts = ctx.saved_tensors
        of_x, of_coefficients = torch.empty_like(x), torch.empty_like(coefficients)
        with torch.autocast(x.device.type, enabled=False):
            for some, own in _mixed(coefficients, experts, x.dtype):
                of_x[some] = torch.bmm(gradient[some], own)
                of_weights = torch.bmm(gradient[some].mT, x[some])
                of_coefficients[some] = of_weights.flatten(1).to(experts.dtype) @ experts.flatten(1).T
        return of_x, of_coefficients, None


def _mixed(coefficients: Tensor, experts: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Some images after the other with their own weights [b, out, in], which are good until the next are asked for."""
    flat = experts.flatten(1)
    at_once = max(1, min(len(coefficients), MIXED // flat.shape[1]))
    memory = flat.new_empty(at_once, flat.shape[1])  # one for all: fresh memory costs more than the product that fills it
    for start in range(0, len(coefficients), at_once):
        some = coefficients[start : start + at_once]
        own = torch.mm(some.to(flat.dtype), flat, out=memory[: len(some)])
        yield slice(start, start + len(some)), own.view(-1, *experts.shape[1:]).to(dtype)
