"""Corruptions relative to the size of the image.

ImageNet-C's constants are meant for images of 224 x 224 pixels. Taken literally on a photograph of 2000 x 1500 they do
next to nothing: an encoder sees it at 224 pixels, where noise has averaged out and a blur of ten pixels is one of one. Here
a corruption does to an image of any size what ImageNet-C does to its version of 224 pixels on the shorter side, so that an
encoder that resizes images to 224 sees about the same; an image of 224 pixels becomes ImageNet-C's own.

- Noise and JPEG compression are applied to that version, and the change that they make there is enlarged and added to the
  image (:func:`of_reference`). Noise with a larger deviation at the image's own resolution would average to the same, but
  would saturate every pixel before that.
- Pixelation leaves as many cells as it leaves there.
- The lengths of motion blur grow with the image; spatter is drawn for that version and enlarged.

An image smaller than 224 pixels has no finer grain than its own pixels: noise, JPEG and pixelation then work on those.
Lengths shrink with it, as drops do, so that blur and spatter stay what they are to the whole picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.corruptions.motion_blur import motion_blur
from datasets.corruptions.pixels import Effect, Pixels, boxed, to_image, to_pixels
from datasets.corruptions.spatter import Constant, drops, splash

REFERENCE = 224  # pixels on the shorter side: the size that ImageNet-C's constants are made for
CORRECTIONS = 3  # of a change before it is enlarged; after them a resize to 224 keeps 95 % of noise, without any 70 %

Size = tuple[int, int]  # width and height


def of_reference(effect: Effect) -> Effect:
    """The effect on the version of 224 pixels, its change carried over to the image."""

    def relative(pixels: Pixels, constant: object, rng: np.random.Generator) -> Pixels:
        size = _size(pixels)
        if min(size) <= REFERENCE:
            return effect(pixels, constant, rng)
        small = to_pixels(to_image(pixels).resize(reference_size(size), Image.Resampling.BICUBIC))
        return pixels + enlarged(effect(small, constant, rng) - small, size)

    return relative


def relative_motion_blur(pixels: Pixels, constant: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """Motion blur, its lengths in 224ths of the shorter side."""
    return motion_blur(pixels, constant, rng, min(_size(pixels)) / REFERENCE)


def relative_pixelate(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Averaged over the ``share`` of 224 cells on the shorter side, or of the image's pixels where those are fewer."""
    width, height = size = _size(pixels)
    columns, rows = size if min(size) <= REFERENCE else reference_size(size)
    return boxed(pixels, (max(1, int(columns * share)), max(1, int(rows * share))), (width, height))


def relative_spatter(pixels: Pixels, constant: Constant, rng: np.random.Generator) -> Pixels:
    """Spatter drawn for the version of 224 pixels and brought to the size of the image."""
    width, height = reference_size(_size(pixels))
    layer = drops((height, width), constant, rng)
    return splash(pixels, _resized(layer, _size(pixels), Image.Resampling.BILINEAR), constant)


def reference_size(size: Size) -> Size:
    """The size with 224 pixels on the shorter side."""
    width, height = size
    return round(width * REFERENCE / min(size)), round(height * REFERENCE / min(size))


def enlarged(change: Pixels, size: Size) -> Pixels:
    """A change [h, w, 3] of the small version at the image's size, such that the small version of that is the change again.

    Enlarging and resizing back weakens the finest detail. So what would be lost is added beforehand, a few times over (an
    iterative back-projection). Twice the small size does to find out: the loss hardly differs beyond.
    """
    small = _size(change)
    probe = tuple(min(full, 2 * part) for full, part in zip(size, small, strict=True))
    channels = []
    for channel in np.moveaxis(change, 2, 0):
        corrected = channel
        for _ in range(CORRECTIONS):
            corrected = corrected + channel - _resized(_resized(corrected, probe), small)
        channels.append(_resized(corrected, size))
    return np.stack(channels, axis=2)


def _resized(values: NDArray[np.float32], size: tuple[int, ...], how: Image.Resampling = Image.Resampling.BICUBIC) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize((size[0], size[1]), how))


def _size(pixels: Pixels) -> Size:
    return pixels.shape[1], pixels.shape[0]
