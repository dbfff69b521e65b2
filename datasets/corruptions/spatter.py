"""Spatter: drops of water (severities 1 to 3) or mud (4 and 5) on the lens.

A layer of Gaussian noise is blurred; where it exceeds a threshold, there is liquid. Mud covers, water brightens, most along
the rims of its drops. ImageNet-C does this with OpenCV and scikit-image. Here it is done with SciPy, which differs in three
places:

- the rims of drops are their outermost pixels; OpenCV's Canny edges lie there too, since the layer jumps nowhere else;
- distances from the rims are exact; OpenCV's 5 x 5 mask approximates them to a few per cent;
- blurs and filters go on in floating point where OpenCV rounds to 8 bits in between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.corruptions.pixels import Pixels

WATER = np.array([175, 238, 238], dtype=np.float32) / np.float32(255)  # pale turquoise
MUD = np.array([63, 42, 20], dtype=np.float32) / np.float32(255)
MUD_THRESHOLD = 0.8  # thinner mud does not show
FAR = 20  # pixels from a rim at which a distance stops to count
RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # lets light fall from one side

Constant = tuple[float, float, float, float, float, int]
Layer = NDArray[np.float32]


def spatter(pixels: Pixels, constant: Constant, rng: np.random.Generator) -> Pixels:
    """The image behind drops drawn at its own size; ``constant`` is explained beside the constants."""
    return splash(pixels, drops(pixels.shape[:2], constant, rng), constant)


def splash(pixels: Pixels, layer: Layer, constant: Constant) -> Pixels:
    """The image behind a layer of :func:`drops`: mud takes the image's place, water adds its colour."""
    cover = layer[..., None]
    return pixels * (1 - cover) + MUD * cover if constant[5] else pixels + WATER * cover


def drops(shape: tuple[int, ...], constant: Constant, rng: np.random.Generator) -> Layer:
    """How much liquid there is at each pixel [H, W], from 0 to 1."""
    from scipy.ndimage import gaussian_filter

    mean, std, blur, threshold, strength, is_mud = constant
    liquid = gaussian_filter(mean + std * rng.standard_normal(shape), blur, mode="nearest")
    liquid[liquid < threshold] = 0
    if not is_mud:
        return (strength * _water(liquid)).astype(np.float32)
    mud = gaussian_filter((liquid > threshold).astype(np.float64), strength, mode="nearest")
    return np.where(mud < MUD_THRESHOLD, 0, mud).astype(np.float32)


def _water(liquid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Water at each pixel, at most 1: the liquid, by how its drops catch the light."""
    from scipy.ndimage import binary_erosion, correlate, distance_transform_edt, uniform_filter

    wet = liquid > 0
    rims = wet & ~binary_erosion(wet, border_value=1)
    if not rims.any():
        return np.zeros_like(liquid)
    distance = uniform_filter(np.minimum(distance_transform_edt(~rims), FAR), 3, mode="mirror")
    light = correlate(equalized(np.rint(distance).astype(np.int64)), RELIEF, mode="mirror").clip(0, 255)
    water = liquid * uniform_filter(light, 3, mode="mirror")
    return water / water.max() if water.max() > 0 else water


def equalized(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whole numbers from 0 spread over 0 to 255 so that their cumulative histogram becomes a straight line."""
    cumulative = np.bincount(levels.ravel()).cumsum()
    least = cumulative[cumulative > 0][0]
    if least == levels.size:
        return levels.astype(np.float64)
    return np.rint((cumulative - least).clip(0) * (255 / (levels.size - least)))[levels]
