"""Multi-crop: two large and many small random views of an image, made in the loader's processes.

As Caron et al. (ICCV 2021) draw them with the scales of the overlap paper's released code, each view in this order:

    crop      part of the area (.25-1 large, .05-.25 small), ratio 3/4 to 4/3, bicubic, to 224 or 96 pixels
    flip      with probability .5
    jitter    with .8: brightness, contrast, saturation by up to .4, .4, .2, hue by up to .1, in random order
    grey      with .2
    blur      Gaussian, radius .1 to 2 pixels at 224: with 1 the first large view, .1 the second, .5 the small ones
    solarise  with .2, the second large view only

At other sizes of the encoder's input the radii and the size of small views change with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomApply, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor

from common.errors import UserError
from fewshot.dino.options import DinoOptions

GLOBAL = 2  # large views
PUBLISHED_SIZE, PUBLISHED_LOCAL = 224, 96  # pixels
RADII = (0.1, 2.0)  # of blur, in pixels of a large view of 224


@dataclass(frozen=True)
class CropSizes:
    """Sides in pixels of the large and the small views, and the number of the small ones."""

    large: int
    small: int
    small_views: int

    @property
    def views(self) -> int:
        """Views of an image."""
        return GLOBAL + self.small_views


def crop_sizes(size: int, patch: int, options: DinoOptions) -> CropSizes:
    """The sizes for an encoder of ``size`` pixels in patches of ``patch``: as asked, or 96 / 224 of it in whole patches.

    Raises :class:`UserError` for small views that are not whole patches, or larger than the large ones.
    """
    small = options.local_crops_size or patch * max(1, round(size * PUBLISHED_LOCAL / PUBLISHED_SIZE / patch))
    if small % patch or small > size:
        raise UserError(f"--local-crops-size {small} is not a multiple of the encoder's patches of {patch} pixels up to its {size} pixels.")
    return CropSizes(size, small, options.local_crops_number)


class MultiCrop:
    """An image to its views, uint8, one behind the other in one flat tensor, large ones first: :func:`split_views` parts them.

    Picklable, so that loader processes can receive it. All draws come from torch's generator, which the loader seeds for each image.
    """

    def __init__(self, sizes: CropSizes, options: DinoOptions) -> None:
        unit = sizes.large / PUBLISHED_SIZE
        large, small = (sizes.large, options.global_crops_scale), (sizes.small, options.local_crops_scale)
        first = View(*large, unit, blur=1.0)
        second = View(*large, unit, blur=0.1, solarise=0.2)
        local = View(*small, unit, blur=0.5)
        self.makers = [first, second] + [local] * sizes.small_views

    def __call__(self, image: Image.Image) -> Tensor:
        """uint8 [2 * 3 * S^2 + n * 3 * s^2] of an RGB image."""
        return torch.cat([make(image).flatten() for make in self.makers])


class View:
    """One random view of an image: uint8 [3, size, size]. ``unit`` is the length of a pixel of the published large view."""

    def __init__(self, size: int, scale: tuple[float, float], unit: float, *, blur: float, solarise: float = 0.0) -> None:
        self.steps = [
            RandomResizedCrop(size, scale=scale, interpolation=InterpolationMode.BICUBIC),
            RandomHorizontalFlip(),
            RandomApply([ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8),
            RandomGrayscale(0.2),
        ]
        self.radii = (RADII[0] * unit, RADII[1] * unit)
        self.blur, self.solarise = blur, solarise

    def __call__(self, image: Image.Image) -> Tensor:
        """The view of an RGB image."""
        for step in self.steps:
            image = step(image)
        if torch.rand(()) < self.blur:
            image = image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(*self.radii))))
        if torch.rand(()) < self.solarise:
            image = ImageOps.solarize(image)
        return pil_to_tensor(image)


def split_views(flat: Tensor, sizes: CropSizes) -> tuple[Tensor, Tensor]:
    """The views of a batch [B, ...] of :class:`MultiCrop`: large uint8 [2 B, 3, S, S] and small [n B, 3, s, s], view by view."""
    length = GLOBAL * 3 * sizes.large**2
    return _by_view(flat[:, :length], sizes.large), _by_view(flat[:, length:], sizes.small)


def _by_view(flat: Tensor, side: int) -> Tensor:
    """[B, views * 3 * side^2] to [views * B, 3, side, side]: all images in their first view, then all in their second."""
    views = flat.shape[1] // (3 * side * side)
    return flat.reshape(len(flat), views, 3, side, side).transpose(0, 1).flatten(0, 1)
