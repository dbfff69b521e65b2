"""Task vectors of which only the largest entries are kept, and their form in files: one bit for each entry, and the kept values."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def magnitude_pruned(tensor: Tensor, ratio: float) -> Tensor:
    """``tensor`` with 0 where \\|v\\| is not above the ``ratio``-quantile of all \\|v\\|; 1 leaves nothing, 0 all but the smallest.

    The quantile lies between two order statistics a_i <= a_{i+1}, i = floor(ratio (n - 1)), and no entry lies strictly between them, so
    \\|v\\| > a_i keeps the same entries. That is decided by comparison alone: of 1000 entries and ratio 0.9, exactly 100 remain when
    all differ. Source: E-WEMoE (arXiv:2410.21804), which prunes every tensor of a task vector by itself.
    """
    magnitudes = tensor.abs().flatten()
    below = int(Fraction(str(ratio)) * (len(magnitudes) - 1))  # in decimal, as the ratio was typed
    return tensor.masked_fill(tensor.abs() <= magnitudes.kthvalue(below + 1).values, 0)


def each_pruned(vectors: Tensor, ratio: float | None) -> Tensor:
    """:func:`magnitude_pruned` of each of the K tensors [K, *shape]; with None they stay as they are."""
    return vectors if ratio is None else torch.stack([magnitude_pruned(vector, ratio) for vector in vectors])


def pack(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(mask uint8 [ceil(n / 8)], values [m]) of a float tensor with n entries, m of which are not 0; row-major, lowest bit first."""
    flat = tensor.detach().cpu().flatten()
    kept = flat != 0
    return torch.from_numpy(np.packbits(kept.numpy(), bitorder="little")), flat[kept]


def unpack(mask: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor [*shape] that :func:`pack` was given, to the bit but for the sign of zeros. ValueError when they do not fit."""
    unpacked = torch.zeros(shape, dtype=values.dtype)
    if mask.dtype != torch.uint8 or mask.shape != (-(-unpacked.numel() // 8),):
        raise ValueError(f"a mask of {mask.numel()} {mask.dtype} is not that of {unpacked.numel()} entries")
    kept = np.unpackbits(mask.numpy(), count=unpacked.numel(), bitorder="little").view(np.bool_)
    if values.shape != (np.count_nonzero(kept),):
        raise ValueError(f"the mask keeps {np.count_nonzero(kept)} entries, and there are {values.numel()} values")
    unpacked.view(-1).masked_scatter_(torch.from_numpy(kept), values)
    return unpacked
