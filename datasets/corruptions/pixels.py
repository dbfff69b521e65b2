"""Images as arrays of numbers from 0 (black) to 1 (white), and corruptions of single pixels: contrast, noise, JPEG, pixelation.

A corruption is a function of (pixels float32 [H, W, 3], constant, generator) that returns pixels of the same kind.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
Effect = Callable[[Pixels, Any, np.random.Generator], Pixels]


def to_pixels(image: Image.Image) -> Pixels:
    """The pixels [H, W, 3] of an RGB image, from 0 to 1."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def to_image(pixels: Pixels) -> Image.Image:
    """The nearest 8-bit image; values beyond black and white are cut off."""
    return Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))


def contrast(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """``mean + factor * (pixels - mean)``, the mean being that of each channel. Nothing is drawn."""
    mean = pixels.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return mean + np.float32(factor) * (pixels - mean)


def gaussian_noise(pixels: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    """Adds to every value one drawn from N(0, std²)."""
    return (pixels + np.float32(std) * rng.standard_normal(pixels.shape, dtype=np.float32)).clip(0, 1)


def impulse_noise(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Salt and pepper: the share ``amount`` of the values, each channel for itself, becomes 0 or 1 at even chances."""
    hit, salt = rng.random(pixels.shape, dtype=np.float32), rng.random(pixels.shape, dtype=np.float32) < 0.5
    return np.where(hit < amount, salt.astype(np.float32), pixels)


def jpeg_compression(pixels: Pixels, quality: int, rng: np.random.Generator) -> Pixels:
    """Saved as a JPEG of this quality and read again. Nothing is drawn."""
    file = io.BytesIO()
    to_image(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as saved:
        return to_pixels(saved)


def boxed(pixels: Pixels, cells: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """Averaged over ``cells`` (columns, rows), which are then shown at ``size`` (width, height)."""
    box = Image.Resampling.BOX
    return to_pixels(to_image(pixels).resize(cells, box).resize(size, box))


def pixelate_to_32(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """CIFAR-10-C's: whatever the size, averaged over ``int(32 * share)`` squared cells and returned at 32 x 32."""
    side = int(32 * share)
    return boxed(pixels, (side, side), (32, 32))
