"""Pillow's resizing for whole batches of small images, bit for bit.

Pillow resizes 8-bit images in two passes, rows then columns. Each output value is a weighted sum of a few neighbours with
weights in fixed point (22 bits behind the point), rounded and clipped to 0 .. 255 after either pass. A pass is therefore a
matrix product in whole numbers, and float64 holds every one of these sums exactly (8 + 22 bits and the few of the sum).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PRECISION = 22  # bits behind the point of Pillow's weights
IMAGES = 12  # that are worked on at once, so that what lies between the passes stays in the processor's cache
OUTPUTS = 32  # of a pass that are computed by one product: they see few of the inputs


def resize_batch(pixels: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """``pixels`` uint8 [b, H, W] resized to uint8 [b, height, width]; equal to ``Image.resize`` of each.

    ``interpolation`` is ``bilinear`` or ``bicubic``; both smooth when they shrink, as Pillow's do.
    """
    resized = pixels.new_empty(len(pixels), height, width)
    for start in range(0, len(pixels), IMAGES):
        rows = _pass(pixels[start : start + IMAGES], width, interpolation)
        resized[start : start + IMAGES] = _pass(rows.transpose(1, 2), height, interpolation).transpose(1, 2)
    return resized


def _pass(pixels: Tensor, size: int, interpolation: str) -> Tensor:
    """The last axis of ``pixels`` resized to ``size``."""
    if pixels.shape[-1] == size:
        return pixels  # Pillow leaves out a pass that changes nothing
    flat = pixels.reshape(-1, pixels.shape[-1]).double()
    resized = pixels.new_empty(len(flat), size)
    for start, first, weights in _bands(pixels.shape[-1], size, interpolation):
        sums = flat[:, first : first + len(weights)] @ weights.to(flat.device)
        resized[:, start : start + OUTPUTS] = sums.add_(0.5).clamp_(0, 255)  # to bytes: cut behind the point
    return resized.reshape(*pixels.shape[:-1], size)


@lru_cache(maxsize=64)
def _bands(old: int, new: int, interpolation: str) -> list[tuple[int, int, Tensor]]:
    """(first output, first input, weights [inputs, outputs]) for runs of outputs: no weight outside is other than 0."""
    weights, bands = _weights(old, new, interpolation), []
    for start in range(0, new, OUTPUTS):
        seen = np.flatnonzero(weights[:, start : start + OUTPUTS].any(axis=1))
        band = weights[seen[0] : seen[-1] + 1, start : start + OUTPUTS]
        bands.append((start, int(seen[0]), torch.from_numpy(np.ascontiguousarray(band))))
    return bands


def _weights(old: int, new: int, interpolation: str) -> NDArray[np.float64]:
    """Pillow's weights [old, new], whole multiples of 2^-22: column j holds those of output j."""
    scale = old / new
    stretch = max(scale, 1.0)
    kernel, support = _KERNELS[interpolation]
    weights = np.zeros((old, new))
    for position in range(new):
        centre = (position + 0.5) * scale
        first, end = max(int(centre - support * stretch + 0.5), 0), min(int(centre + support * stretch + 0.5), old)
        values = np.array([kernel((place - centre + 0.5) * (1.0 / stretch)) for place in range(first, end)])
        total = 0.0
        for value in values:  # in Pillow's order: the last bit can matter
            total += value
        values = values / total * 2.0**PRECISION
        weights[first:end, position] = np.trunc(values + np.copysign(0.5, values))
    return weights / 2.0**PRECISION


def _bilinear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


_KERNELS = {"bilinear": (_bilinear, 1.0), "bicubic": (_bicubic, 2.0)}
