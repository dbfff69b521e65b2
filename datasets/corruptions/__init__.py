"""Corrupted images: seven kinds, severities from 1 to 5, two styles, on the fly and for any data set.

    python -m datasets.corruptions --picture corruptions.png
    python -m datasets.corruptions --picture corruptions.png photo.jpg --style cifar

``relative`` is the style for measuring robustness: ImageNet-C's constants, defined relative to the image's size
(:mod:`datasets.corruptions.relative`).

``cifar`` is for comparison with the published robustness table of the merging benchmark (FusionBench), which was made with
CIFAR-10-C's constants at the images' own size. They are made for images of 32 pixels, so on larger ones most do little; but
pixelation turns every image into one of 32 x 32, on which every method scored near chance on Cars. That column measures
nothing about the methods. Which severity the published sets have is not recorded.

The formulas are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. Their numbers come from other libraries (OpenCV, scikit-image, ImageMagick) and from another
stream of random numbers, and they cut fractions of a grey level off where these round; so single pixels differ from theirs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.corruptions.constants import CONSTANTS
from datasets.corruptions.motion_blur import motion_blur
from datasets.corruptions.pixels import (
    Effect,
    contrast,
    gaussian_noise,
    impulse_noise,
    jpeg_compression,
    pixelate_to_32,
    to_image,
    to_pixels,
)
from datasets.corruptions.relative import of_reference, relative_motion_blur, relative_pixelate, relative_spatter
from datasets.corruptions.spatter import spatter
from datasets.naming import Corruption
from datasets.samples import Samples

__all__ = ["CorruptedSamples", "corrupt", "generator"]

VERSION = 1  # raise it whenever corrupt() can give other pixels for the same image, corruption and sample id

EFFECTS: dict[str, dict[str, Effect]] = {
    "relative": {
        "contrast": contrast,
        "gaussian_noise": of_reference(gaussian_noise),
        "impulse_noise": of_reference(impulse_noise),
        "jpeg_compression": of_reference(jpeg_compression),
        "motion_blur": relative_motion_blur,
        "pixelate": relative_pixelate,
        "spatter": relative_spatter,
    },
    "cifar": {
        "contrast": contrast,
        "gaussian_noise": gaussian_noise,
        "impulse_noise": impulse_noise,
        "jpeg_compression": jpeg_compression,
        "motion_blur": motion_blur,
        "pixelate": pixelate_to_32,
        "spatter": spatter,
    },
}


def corrupt(image: Image.Image, corruption: Corruption, rng: np.random.Generator) -> Image.Image:
    """The RGB ``image`` corrupted, RGB and of the same size (pixelation of the style ``cifar``: 32 x 32).

    Whatever is random comes from ``rng``, in the same order at every severity.
    """
    effect = EFFECTS[corruption.style][corruption.kind]
    return to_image(effect(to_pixels(image.convert("RGB")), _constant(corruption), rng))


def generator(sample_id: str, corruption: Corruption) -> np.random.Generator:
    """The stream of random numbers for one image, which only its id and the kind of corruption decide.

    So neither order nor batch, subset or loader process changes an image, and the severities of one image share their draw:
    they differ in strength only.
    """
    digest = hashlib.sha256(f"{corruption.kind} {sample_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(np.frombuffer(digest, dtype="<u4").tolist())))


@dataclass(frozen=True)
class CorruptedSamples:
    """Samples whose images are corrupted whenever they are asked for. Ids stay, so predictions can be compared."""

    samples: Samples
    corruption: Corruption

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        image = self.samples.image(index)
        return corrupt(image, self.corruption, generator(self.sample_id(index), self.corruption))

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return self.samples.sample_id(index)

    def digest(self, index: int) -> bytes:
        """A hash of the clean image's and of everything that decides the corruption, its constants and version included."""
        definition = f"{VERSION} {self.corruption.kind} {self.corruption.style} {_constant(self.corruption)}"
        return hashlib.sha256(self.samples.digest(index) + definition.encode()).digest()


def _constant(corruption: Corruption) -> object:
    return CONSTANTS[corruption.style][corruption.kind][corruption.severity - 1]
