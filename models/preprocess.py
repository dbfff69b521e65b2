"""An encoder's preprocessing in two halves: image to bytes in the loader, bytes to numbers on the device.

Resizing and cropping need the image; the rest is arithmetic on every pixel, which a GPU does in no time, and bytes are a quarter
of what would otherwise pass from process to process and to the device. Both halves together are, bit for bit, the transform
of open_clip that they are made from.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import log2
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize
from torchvision.transforms import functional as F
from torchvision.transforms.functional import pil_modes_mapping

from models.resample import resize_batch

BATCHED = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.BICUBIC: "bicubic"}


CPU_IMAGES = 8  # that are finished at once, so that they stay in the processor's cache from step to step


class Geometry:
    """The first half: resize and crop. Picklable, so that loader processes can receive it.

    ``side`` is the length to which the shorter side of an image is scaled, for decoding at a reduced scale; None where that
    is not known beforehand. ``size`` is (height, width) of the result.
    """

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps
        self.resize: Resize | None = steps[0] if steps and isinstance(steps[0], Resize) else None
        self.side = None if self.resize is None else _shorter(self.resize.size)
        self.size = tuple(self(Image.new("RGB", (64, 64))).shape[-2:])

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB image as uint8 [3, S, S]."""
        if "full_size" in image.info:
            image = self._of_reduced(image, image.info["full_size"])
        for step in self.steps:
            image = step(image)
        return F.pil_to_tensor(image)

    def _of_reduced(self, image: Image.Image, full_size: tuple[int, int]) -> Image.Image:
        """The first step for an image that was decoded at a half of its size or less: nothing beyond its true edge counts."""
        assert self.resize is not None
        width, height = full_size
        shrunk = 2 ** round(log2(width / image.width))
        new_height, new_width = _resized((height, width), self.resize.size)
        box = (0.0, 0.0, width / shrunk, height / shrunk)
        return image.resize((new_width, new_height), pil_modes_mapping[self.resize.interpolation], box)

    @property
    def batches(self) -> bool:
        """Whether :meth:`of_batch` can do it."""
        crops = self.steps[1:]
        return self.resize is not None and self.resize.interpolation in BATCHED and all(isinstance(step, CenterCrop) for step in crops)

    def of_batch(self, pixels: Tensor) -> Tensor:
        """Many images of one size at once: uint8 [b, c, H, W] to uint8 [b, c, S, S], the same as one by one."""
        assert self.resize is not None
        if pixels.device.type == "mps":  # has no float64
            return self.of_batch(pixels.cpu()).to(pixels.device)
        count, channels, height, width = pixels.shape
        new = _resized((height, width), self.resize.size)
        flat = resize_batch(pixels.reshape(-1, height, width), *new, BATCHED[self.resize.interpolation])
        resized = flat.reshape(count, channels, *new)
        for crop in self.steps[1:]:
            resized = crop(resized)
        return resized


class Preprocess(nn.Module):
    """Both halves: ``preprocess(image)`` is float32 [3, S, S], as open_clip makes it."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PreprocessCfg) -> None:
        super().__init__()
        *steps, _, normalize = image_transform_v2(config, is_train=False).transforms
        if not isinstance(normalize, Normalize):
            raise TypeError(f"open_clip's transform ends with {type(normalize).__name__}, not with Normalize")
        self.geometry = Geometry([step for step in steps if type(step).__name__ != "MaybeConvertMode"])  # samples are RGB already
        self.register_buffer("mean", torch.tensor(normalize.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(normalize.std)[:, None, None], persistent=False)

    @property
    def description(self) -> str:
        """What is done to an image, in words that are the same for the same."""
        return repr((self.geometry.steps, self.mean.flatten().tolist(), self.std.flatten().tolist()))

    def forward(self, image: Image.Image) -> Tensor:
        """What the image tower takes, for one RGB image, on the device of the encoder."""
        return self.normalized(self.geometry(image))

    def normalized(self, pixels: Tensor) -> Tensor:
        """The second half: ``pixels`` uint8 [..., c, S, S], c = 3 or 1 for grey, to float32 [..., 3, S, S]."""
        return pixels.to(self.mean.device).float().div_(255).sub(self.mean).div_(self.std)

    def of_bytes(self, pixels: Tensor) -> Tensor:
        """What the image tower takes, for a batch of RGB or grey images of one size, whatever it is: uint8 [b, c, H, W]."""
        ready = not self.geometry.batches or pixels.shape[-2:] == self.geometry.size
        finished = self.mean.new_empty(len(pixels), 3, *self.geometry.size)
        at_once = CPU_IMAGES if finished.device.type == "cpu" else max(len(pixels), 1)
        for start in range(0, len(pixels), at_once):
            some = pixels[start : start + at_once]
            finished[start : start + at_once] = self.normalized(some if ready else self.geometry.of_batch(some))
        return finished


def with_statistics(preprocess: Preprocess, mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    """A copy of ``preprocess`` on its device that subtracts another mean and divides by another deviation, each of three channels."""
    other = copy.deepcopy(preprocess)
    for buffer, values in ((other.mean, mean), (other.std, std)):
        buffer.copy_(torch.tensor(values)[:, None, None])
    return other


def _shorter(size: Any) -> int:
    return int(min(size)) if isinstance(size, (list, tuple)) else int(size)


def _resized(old: tuple[int, int], size: Any) -> tuple[int, int]:
    """(height, width) after torchvision's ``Resize(size)``: one number is the length of the shorter side."""
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    side, (height, width) = _shorter(size), old
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
