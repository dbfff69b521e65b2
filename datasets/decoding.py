"""Encoded images to RGB."""

from __future__ import annotations

import io
from math import ceil

import numpy as np
from PIL import Image, UnidentifiedImageError

DRAFT = 3  # what Pillow calls indistinguishable from fair resampling; benchmarks/data.py prints the difference
LEAST = 400  # pixels; below that little is won, and colours, which JPEG files hold at half the size, begin to differ


def decode(data: bytes, side: int | None = None) -> Image.Image:
    """The first frame of an encoded image as RGB, as the CLIP and torchvision pipelines see it.

    An EXIF orientation is not applied and an alpha channel is dropped, because the published numbers were made so.
    With a ``side``, a JPEG file may be decoded at a half, a quarter or an eighth of its size, so long as its shorter side
    keeps at least ``DRAFT * side`` pixels, and :data:`LEAST`: resizing to ``side`` then hides the difference.
    ``info["full_size"]`` is the true (width, height) of such an image: a half of 227 pixels is 114 pixels, of which the last
    shows half of nothing.
    Raises whatever the decoder raises.
    """
    if not data:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(data)) as image:
        if side is not None:
            _reduce(image, side)
        image.load()
        return to_rgb(image)


def _reduce(image: Image.Image, side: int) -> None:
    """Let a JPEG decoder that has not begun give a reduced image, if it still is large enough."""
    size, shrink = image.size, max(DRAFT * side, LEAST) / min(image.size)
    if image.draft(image.mode, (ceil(size[0] * shrink), ceil(size[1] * shrink))) is not None and image.size != size:
        image.info["full_size"] = size


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that image files have, as 8-bit RGB.

    Pillow clips 16-bit grey to 255, which makes nearly every such picture white; here its full range is scaled, the same
    for all images: ``round(value / 257)``. Pillow opens some 16-bit files as mode ``I``.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels of floating-point numbers have no agreed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow's advice for palettes with transparent entries
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """What is wrong with a file, on one line and without the machine's paths."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
