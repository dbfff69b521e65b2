"""Motion blur: every pixel becomes a mean of those along a line."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from datasets.corruptions.pixels import Pixels

MAX_ANGLE = 45.0  # degrees from the horizontal


def motion_blur(pixels: Pixels, constant: tuple[float, float], rng: np.random.Generator, scale: float = 1.0) -> Pixels:
    """The mean of the pixels at t = 0 .. 2 * radius along a line, weighted by ``exp(-t² / 2 sigma²)``.

    ``constant`` is (radius, sigma), ``scale`` the factor of both. The line starts at the pixel, as ImageMagick's does, at an
    angle drawn from U(-45°, 45°). The image goes on beyond its border as its outermost pixels.
    """
    from scipy.signal import fftconvolve

    kernel = line_kernel(*constant, math.radians(rng.uniform(-MAX_ANGLE, MAX_ANGLE)), scale)
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return fftconvolve(padded, kernel[::-1, ::-1, None], mode="valid", axes=(0, 1)).astype(np.float32)  # type: ignore[no-any-return]


def line_kernel(radius: float, sigma: float, angle: float, scale: float = 1.0) -> NDArray[np.float32]:
    """The weights [2r + 1, 2r + 1] around a pixel, their sum 1; points between pixels are shared out bilinearly.

    Points on the line are one pixel of the scale apart, or closer where the scale would leave gaps.
    """
    closer = max(1, math.ceil(scale - 1e-9))
    t = np.arange(2 * radius * closer + 1) / closer  # in pixels of the scale
    weights = np.exp(-(t**2) / (2 * sigma**2))
    reach = math.ceil(2 * radius * scale) + 1
    x, y = reach + scale * t * math.cos(angle), reach + scale * t * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = (1 - abs(x - left - column)) * (1 - abs(y - top - row))
        np.add.at(kernel, (np.minimum(top + row, 2 * reach), np.minimum(left + column, 2 * reach)), weights * share)
    return (kernel / kernel.sum()).astype(np.float32)
