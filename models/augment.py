"""Random changes to training images. The published protocol has none: training sees what testing sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from models.encoder import Encoder
from models.preprocess import Geometry

AUGMENTATIONS = ("none", "crop", "crop-flip")


def augmentation(name: str, encoder: Encoder) -> Callable[[Image.Image], Tensor]:
    """The training transform, an image to bytes: the encoder's own, after a random resized crop and, on request, a mirroring.

    ``crop`` is open_clip's: 90 to 100 % of the area, resized to the encoder's size. Draws come from torch's generator.
    """
    if name == "none":
        return encoder.preprocess.geometry
    return _Augmented(encoder.preprocess.geometry, encoder.image_size, flip=name == "crop-flip")


class _Augmented:
    """Picklable, so that loader processes can receive it."""

    def __init__(self, geometry: Geometry, size: int, flip: bool) -> None:
        from torchvision.transforms import InterpolationMode, RandomResizedCrop

        self.crop = RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
        self.geometry, self.flip = geometry, flip

    def __call__(self, image: Image.Image) -> Tensor:
        image = self.crop(image)
        if self.flip and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.geometry(image)
