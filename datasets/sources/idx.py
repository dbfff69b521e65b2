"""MNIST, FashionMNIST, KMNIST and the letters of EMNIST: grey images of 28 x 28 pixels in the idx format.

Layout, each file plain or compressed (``.gz``)::

    {MNIST,FashionMNIST,KMNIST}/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte
    EMNIST/raw/emnist-letters-{train,test}-{images-idx3,labels-idx1}-ubyte

An idx file is a header of big-endian numbers and then the values: two zero bytes, the type (8: unsigned byte), the number of
dimensions, and the size of each in four bytes (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").

EMNIST is stored by columns, so its images are transposed here to stand upright, and its letters count from 1 (Cohen et al.,
"EMNIST: an extension of MNIST to handwritten letters", 2017). torchvision does neither.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.decoding import reason
from datasets.facts import classnames
from datasets.places import find
from datasets.sources.arrays import raw_task, read_bytes
from datasets.task import Task

UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class IdxSet:
    """Where one of the data sets lies and how it differs; ``{}`` in ``files`` is ``images-idx3`` or ``labels-idx1``."""

    key: str  # of its class names among the facts
    folder: str
    files: dict[str, str]
    first: int = 0  # the smallest label
    by_columns: bool = False


_MNIST_FILES = {"train": "train-{}-ubyte", "test": "t10k-{}-ubyte"}
_LETTERS_FILES = {"train": "emnist-letters-train-{}-ubyte", "test": "emnist-letters-test-{}-ubyte"}

IDX_SETS = {
    "MNIST": IdxSet("mnist", "MNIST/raw", _MNIST_FILES),
    "FashionMNIST": IdxSet("fashion_mnist", "FashionMNIST/raw", _MNIST_FILES),
    "KMNIST": IdxSet("kmnist", "KMNIST/raw", _MNIST_FILES),
    "EMNISTLetters": IdxSet("emnist_letters", "EMNIST/raw", _LETTERS_FILES, first=1, by_columns=True),
}


def idx_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test`` of one of :data:`IDX_SETS`; see :class:`~datasets.registry.Source`."""
    kind = IDX_SETS[name]
    images, labels = (
        find(name, data_dir, place, f"{place}.gz")
        for content in ("images-idx3", "labels-idx1")
        for place in [f"{kind.folder}/{kind.files[split].format(content)}"]
    )
    pixels = read_idx(images, 3)
    upright = np.ascontiguousarray(pixels.transpose(0, 2, 1)) if kind.by_columns else pixels
    return raw_task(name, split, upright, read_idx(labels, 1), classnames(kind.key), labels, kind.first)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes with so many dimensions; anything else is a :class:`UserError`."""
    data = _uncompressed(path)
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)) or len(data) < start:
        raise UserError(f"'{path}' is not an idx file of unsigned bytes in {dimensions} dimension(s); get it anew.")
    shape = np.frombuffer(data, ">u4", dimensions, offset=4).tolist()
    if len(data) != start + math.prod(shape):
        raise UserError(f"'{path}' is torn: its header promises {math.prod(shape)} bytes, {len(data) - start} follow; get it anew.")
    return np.frombuffer(bytearray(data), np.uint8, offset=start).reshape(shape)


def _uncompressed(path: Path) -> bytes:
    data = read_bytes(path)
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' is torn or no gzip file ({reason(error)}); get it anew.") from error
