"""The task ``Digits``: scikit-learn's handwritten digits, the one real data set that needs no download.

1797 grey images of 8 x 8 pixels, a part of UCI's "Optical Recognition of Handwritten Digits". They are shown as they
are, light ink on black; the encoder's preprocessing scales them up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.task import Task

NAME = "Digits"
CLASSNAMES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
TEMPLATES = ("a photo of the number {c}.",)
SPLIT_SEED = 0
TEST_SIZE = 597  # of 1797 images: 1200 stay for training
LEVELS = 16.0  # the data count ink from 0 to 16


@dataclass(frozen=True)
class DigitSamples:
    """Images of one split; ``indices`` are rows of the original table."""

    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        return Image.fromarray(self._pixels(index)).convert("RGB")

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return f"digits-{self.indices[index]:04d}"

    def digest(self, index: int) -> bytes:
        """See :class:`~datasets.samples.Samples`."""
        return hashlib.sha256(self._pixels(index).tobytes()).digest()

    def pixels_at(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See :class:`~datasets.samples.ArraySamples`."""
        images, _ = _table()
        return images[np.asarray(self.indices)[indices]]

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        images, _ = _table()
        return images[self.indices[index]]


def digits_task(split: str) -> Task:
    """``Digits``, split ``train`` (1200 images) or ``test`` (597); every class has the same share in both."""
    from sklearn.model_selection import train_test_split

    _, labels = _table()
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=SPLIT_SEED)
    rows = np.sort({"train": train, "test": test}[split])
    return Task(NAME, split, DigitSamples(tuple(rows.tolist())), labels[rows], CLASSNAMES, TEMPLATES)


def digits_source(name: str, split: str, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.Source`."""
    return digits_task(split)


@lru_cache(maxsize=1)
def _table() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images, uint8 [1797, 8, 8] with values 0 .. 255, and labels, int64 [1797]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / LEVELS)).astype(np.uint8), data.target.astype(np.int64)
