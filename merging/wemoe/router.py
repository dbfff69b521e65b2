"""Routers: how much of each task vector an image gets, from what comes into an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEVIATION = 0.01  # of the weights that a router begins with
BASE = 10_000.0  # of the wavelengths of a block's position


class Router(nn.Module):
    """r(h) [B, K], the mean over an image's tokens h [B, T, width] of a small network. Nothing makes its outputs positive or sum to 1.

    =======  =========================  =====================
    layers   network                    parameters
    =======  =========================  =====================
    0        b                          K
    1        W h + b                    (width + 1) K
    2        W relu(V h + c) + b        (width + 1) (width + K)
    =======  =========================  =====================

    W and V are drawn from N(0, 0.01²), c is 0 and b is ``start``, so that training begins near task arithmetic. The last layer is
    linear: it is applied to the mean of the tokens, with the same result. Without layers there is one row for all images: [1, K].
    Source: Tang et al., ICML 2024.
    """

    def __init__(self, width: int, tasks: int, layers: int, start: float, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = _drawn(width, width, 0.0, generator) if layers == 2 else None
        self.last = _drawn(width, tasks, start, generator) if layers else None
        self.constant = None if layers else nn.Parameter(torch.full((tasks,), start))

    def forward(self, h: Tensor) -> Tensor:
        """The weights of the task vectors, float32: [B, K], or [1, K]."""
        if self.constant is not None:
            return self.constant[None]
        assert self.last is not None
        if self.hidden is not None:
            h = self.hidden(h).relu()
        weights: Tensor = self.last(h.mean(dim=1))
        return weights.float()


def position_of(block: int, dim: int) -> Tensor:
    """The position of a block [dim], even: sin(block / 10000^(2i / dim)) for i = 0 ... dim / 2 - 1, then the cosines of the same.

    Source: Vaswani et al., NeurIPS 2017, section 3.5; E-WEMoE puts it before the features of every token.
    """
    angles = block * BASE ** (-2 * torch.arange(dim // 2, dtype=torch.float64) / dim)
    return torch.cat((angles.sin(), angles.cos())).float()


def _drawn(inputs: int, outputs: int, bias: float, generator: torch.Generator) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(linear.weight, std=DEVIATION, generator=generator)
    nn.init.constant_(linear.bias, bias)
    return linear
