"""Images cut to a box each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.samples import Samples


@dataclass(frozen=True, eq=False)
class CroppedSamples:
    """Samples cut to ``boxes``, float64 [N, 4]: left, top, right and bottom in pixels, rounded as Pillow does."""

    samples: Samples
    boxes: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.samples), 4):
            raise ValueError(f"{len(self.samples)} samples but boxes of the shape {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        left, top, right, bottom = self.boxes[index].tolist()
        return self.samples.image(index).crop((left, top, right, bottom))

    def sample_id(self, index: int) -> str:
        """That of the whole image."""
        return self.samples.sample_id(index)

    def digest(self, index: int) -> bytes:
        """A hash of the whole image's and of the box."""
        return hashlib.sha256(self.samples.digest(index) + self.boxes[index].astype("<f8").tobytes()).digest()
