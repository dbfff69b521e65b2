"""PCAM: patches of lymph node sections, with or without tumour tissue, colour, 96 x 96 pixels (Veeling et al., 2018, PatchCamelyon).

Layout, HDF5::

    pcam/camelyonpatch_level_2_split_{train,valid,test}_x.h5     x uint8 [N, 96, 96, 3]
    pcam/camelyonpatch_level_2_split_{train,valid,test}_y.h5     y uint8 [N, 1, 1, 1]

262144, 32768 and 32768 images, 9 GB in all, so they stay on the disk; ``valid`` is the validation split.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from datasets.decoding import reason
from datasets.facts import classnames
from datasets.places import find
from datasets.samples import UnreadableImage
from datasets.sources.arrays import array_task, prefix
from datasets.task import Task

FILES = {"train": "train", "val": "valid", "test": "test"}


def pcam_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test``; see :class:`~datasets.registry.Source`."""
    images, labels = (find(name, data_dir, f"pcam/camelyonpatch_level_2_split_{FILES[split]}_{part}.h5") for part in "xy")
    with _whole(images, "x"):
        size = len(_checked(images, "x", (96, 96, 3)))
    with _whole(labels, "y"):
        numbers = _checked(labels, "y", (1, 1, 1))[:, 0, 0, 0]
    samples = Hdf5Samples(str(images.absolute()), "x", size, prefix(name, split))
    return array_task(name, split, samples, numbers, classnames("pcam"), labels)


@dataclass(frozen=True)
class Hdf5Samples:
    """Images of one size in an HDF5 array, uint8 [N, H, W, 3], read when they are asked for.

    What is pickled is the path: a loader process opens the file for itself.
    """

    path: str
    key: str
    size: int
    prefix: str

    def __len__(self) -> int:
        return self.size

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        try:
            return Image.fromarray(self.pixels_at(np.array([index]))[0])
        except OSError as error:
            raise UnreadableImage(self.sample_id(index), reason(error)) from error

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return f"{self.prefix}-{index:06d}"

    def digest(self, index: int) -> bytes:
        """SHA-256 of the pixels; an image that cannot be read counts as an empty one."""
        try:
            return hashlib.sha256(self.pixels_at(np.array([index])).tobytes()).digest()
        except OSError:
            return hashlib.sha256().digest()

    def pixels_at(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See :class:`~datasets.samples.ArraySamples`; an ``OSError`` when the file is damaged there."""
        array = _array(self.path, self.key, os.getpid())
        if len(indices) > 1 and (np.diff(indices) == 1).all():
            return array[indices[0] : indices[-1] + 1]  # type: ignore[no-any-return]  # one reading, as when embedding in order
        return np.stack([array[index] for index in indices])


@lru_cache(maxsize=8)
def _array(path: str, key: str, process: int) -> Any:
    """The array ``key`` of a file that this process keeps open; one opened before a fork is not used after it."""
    import h5py

    return h5py.File(path, "r", locking=False)[key]  # some network file systems know no locks


def _checked(path: Path, key: str, shape: tuple[int, ...]) -> Any:
    array = _array(str(path.absolute()), key, os.getpid())
    if array.shape[1:] != shape or array.dtype != np.uint8:
        expected = ", ".join(map(str, ("N", *shape)))
        raise UserError(f"'{path}' holds '{key}' {list(array.shape)} of {array.dtype}, not [{expected}] of uint8; get it anew.")
    return array


@contextmanager
def _whole(path: Path, key: str) -> Iterator[None]:
    """What HDF5 says about a damaged file, as a :class:`UserError`."""
    try:
        yield
    except (OSError, KeyError) as error:
        raise UserError(f"'{path}' is torn or no HDF5 file with '{key}' ({reason(error)}); get it anew.") from error
