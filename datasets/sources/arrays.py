"""What the data sets stored as arrays have in common: whole files, and labels that fit their images and classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.prompts import default_templates
from datasets.samples import RawSamples, Samples
from datasets.task import Task


def raw_task(
    name: str, split: str, pixels: NDArray[np.uint8], labels: NDArray[Any], classnames: Sequence[str], path: Path, first: int = 0
) -> Task:
    """The task of the images ``pixels`` [N, H, W] or [N, H, W, 3]; the rest is as :func:`array_task` takes it."""
    return array_task(name, split, RawSamples(pixels, prefix(name, split)), labels, classnames, path, first)


def array_task(
    name: str, split: str, samples: Samples, labels: NDArray[Any], classnames: Sequence[str], path: Path, first: int = 0
) -> Task:
    """The task of ``samples`` with the ``labels`` [N] that the file ``path`` gives them; there, classes are numbered from ``first``.

    A :class:`UserError` when there is not one label for each image, or one that is no class.
    """
    if len(samples) != len(labels):
        raise UserError(
            f"'{path}' holds {len(labels)} labels, but there are {len(samples)} images; one of the files is not whole, get both anew."
        )
    if not len(labels):
        raise UserError(f"'{path}' holds no image of the {split} split of {name}; get it anew.")
    numbers = labels.astype(np.int64) - first
    if wrong := sorted(set(numbers.tolist()) - set(range(len(classnames)))):
        last = first + len(classnames) - 1
        raise UserError(f"'{path}' holds the label {first + wrong[0]}, but the labels of {name} are {first} to {last}; get it anew.")
    return Task(name, split, samples, numbers, tuple(classnames), default_templates(name))


def prefix(name: str, split: str) -> str:
    """The beginning of every sample id, e.g. ``mnist-train``; the number of the image in its split follows."""
    return f"{name.lower()}-{split}"


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; a :class:`UserError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error


def read_records(path: Path, size: int) -> NDArray[np.uint8]:
    """A file of records of ``size`` bytes each, as [N, size]; a :class:`UserError` when the last one is not whole."""
    data = np.frombuffer(bytearray(read_bytes(path)), np.uint8)  # a bytearray, because what lies in bytes cannot be written to
    if len(data) % size:
        raise UserError(f"'{path}' is torn: its {len(data)} bytes are not whole records of {size}; get it anew.")
    return data.reshape(-1, size)
