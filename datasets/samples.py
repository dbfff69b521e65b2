"""Where the images of a task come from: files, arrays, drawings.

Whatever they are, samples have the three methods of :class:`Samples`. Two kinds can do more, and loaders ask for it:
:class:`EncodedSamples` have the bytes of an image file, which can be decoded at a reduced scale, and :class:`ArraySamples`
have pixels of one size, which are batched without becoming images one by one.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.decoding import decode, reason


class UnreadableImage(Exception):
    """An image that cannot be decoded; ``str()`` is the sample's id and the reason."""

    def __init__(self, sample_id: str, reason: str) -> None:
        super().__init__(sample_id, reason)  # both, so that the error survives the way from a loader process
        self.sample_id = sample_id
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.sample_id}: {self.reason}"


class Samples(Protocol):
    """Where the images of a task come from. Must be picklable: loader processes receive a copy."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image as RGB; raises :class:`UnreadableImage`."""

    def sample_id(self, index: int) -> str:
        """A name that is unique in this split and stays the same between runs and machines."""

    def digest(self, index: int) -> bytes:
        """A hash of the sample's content: changes when a pixel can have changed. Defined for unreadable images too."""


class EncodedSamples(ABC):
    """Samples that are image files, wherever their bytes lie: a source defines ``read``, ``sample_id`` and ``__len__``."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image; raises an ``OSError`` when it cannot be read."""

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """See :class:`Samples`."""

    def image(self, index: int, side: int | None = None) -> Image.Image:
        """The image as RGB, with a ``side`` perhaps at a reduced scale (see :func:`~datasets.decoding.decode`).

        Raises :class:`UnreadableImage`, whatever is wrong with it.
        """
        try:
            return decode(self.read(index), side)
        except Exception as error:  # decoders raise nearly every type on damaged files
            raise UnreadableImage(self.sample_id(index), reason(error)) from error

    def digest(self, index: int) -> bytes:
        """SHA-256 of the encoded bytes; an image that cannot be read counts as an empty one."""
        try:
            return hashlib.sha256(self.read(index)).digest()
        except (OSError, ValueError):  # a name that no file can have is a ValueError
            return hashlib.sha256().digest()


@runtime_checkable
class ArraySamples(Protocol):
    """Samples of one size that can give many images at once."""

    def pixels_at(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at ``indices`` [b]: uint8 [b, H, W] for grey or [b, H, W, 3] for RGB."""


@dataclass(frozen=True, eq=False)
class RawSamples:
    """Images of one size as an array: ``pixels`` uint8, [N, H, W] for grey or [N, H, W, 3] for RGB.

    Sample ids are ``prefix-index``, the index being that in the data set's file.
    """

    pixels: NDArray[np.uint8]
    prefix: str

    def __len__(self) -> int:
        return len(self.pixels)

    def pixels_at(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See :class:`ArraySamples`."""
        return self.pixels[indices]

    def image(self, index: int) -> Image.Image:
        """See :class:`Samples`."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[index])).convert("RGB")

    def sample_id(self, index: int) -> str:
        """See :class:`Samples`."""
        return f"{self.prefix}-{index:06d}"

    def digest(self, index: int) -> bytes:
        """See :class:`Samples`."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels[index]).tobytes()).digest()


@dataclass(frozen=True, eq=False)
class ReadySamples:
    """Decoded, resized and cropped images in a file that is mapped into memory, for which ``samples`` answer all else.

    The file holds uint8 [N, 3, S, S]; ``unreadable`` maps the indices of images that could not be decoded to the reasons.
    """

    samples: Samples
    path: Path
    unreadable: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.samples)

    def pixels_at(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The bytes that preprocessing ends with: uint8 [b, 3, S, S]."""
        return np.ascontiguousarray(self._pixels[indices])

    def image(self, index: int) -> Image.Image:
        """See :class:`Samples`."""
        return self.samples.image(index)

    def sample_id(self, index: int) -> str:
        """See :class:`Samples`."""
        return self.samples.sample_id(index)

    def digest(self, index: int) -> bytes:
        """See :class:`Samples`."""
        return self.samples.digest(index)

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}  # each process maps it itself


@dataclass(frozen=True)
class Subset:
    """Some samples of another source, in the given order."""

    samples: Samples
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """See :class:`Samples`."""
        return self.samples.image(int(self.indices[index]))

    def sample_id(self, index: int) -> str:
        """See :class:`Samples`."""
        return self.samples.sample_id(int(self.indices[index]))

    def digest(self, index: int) -> bytes:
        """See :class:`Samples`."""
        return self.samples.digest(int(self.indices[index]))


def located(samples: Samples, indices: Any) -> tuple[Samples, NDArray[np.int64]]:
    """The samples that lie under any :class:`Subset` of subsets, and where ``indices`` [b] are in them."""
    places, under = np.asarray(indices, dtype=np.int64), samples
    while isinstance(under, Subset):
        places, under = under.indices[places], under.samples
    return under, places
