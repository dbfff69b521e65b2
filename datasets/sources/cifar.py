"""CIFAR10 and CIFAR100 (fine labels): colour images of 32 x 32 pixels (Krizhevsky, "Learning multiple layers of features", 2009).

Layout of the binary version, and of the Python version where that is what there is; both hold the same images in the same order::

    cifar-10-batches-bin/{data_batch_1, ..., data_batch_5, test_batch}.bin     cifar-10-batches-py/{data_batch_1, ..., test_batch}
    cifar-100-binary/{train,test}.bin                                          cifar-100-python/{train,test}

A binary file is a run of records: the label (for CIFAR100 the coarse one, then the fine one) in a byte each, and 3072 bytes of
pixels, first all red ones, row by row, then green, then blue. A Python file is a pickle of a dictionary of the same; it is read
by :func:`~datasets.plain_pickle.read_plain_pickle`, which runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.facts import classnames
from datasets.places import find
from datasets.plain_pickle import read_plain_pickle
from datasets.sources.arrays import raw_task, read_records
from datasets.task import Task

PIXELS = 3 * 32 * 32
MISSPELT = {"cra": "crab"}  # the published list of CIFAR100; the data set's own list has the word whole


@dataclass(frozen=True)
class CifarSet:
    """Where one of the two data sets lies and how it is labelled."""

    key: str  # of its class names among the facts
    binary: str  # folder
    python: str  # folder
    files: dict[str, tuple[str, ...]]
    label_bytes: int  # before the pixels of a record; the last is the label
    label_key: str  # in the dictionaries of the Python version


CIFAR_SETS = {
    "CIFAR10": CifarSet(
        key="cifar10",
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        label_bytes=1,
        label_key="labels",
    ),
    "CIFAR100": CifarSet(
        key="cifar100",
        binary="cifar-100-binary",
        python="cifar-100-python",
        files={"train": ("train",), "test": ("test",)},
        label_bytes=2,
        label_key="fine_labels",
    ),
}


def cifar_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test`` of one of :data:`CIFAR_SETS`; see :class:`~datasets.registry.Source`."""
    kind = CIFAR_SETS[name]
    paths = [find(name, data_dir, f"{kind.binary}/{file}.bin", f"{kind.python}/{file}") for file in kind.files[split]]
    parts = [_read_binary(path, kind) if path.suffix == ".bin" else _read_python(path, kind) for path in paths]
    planes = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])
    names = [MISSPELT.get(classname, classname) for classname in classnames(kind.key)]
    return raw_task(name, split, np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, names, paths[0].parent)


def _read_binary(path: Path, kind: CifarSet) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Pixels [N, 3072] and labels [N]."""
    records = read_records(path, kind.label_bytes + PIXELS)
    return records[:, kind.label_bytes :], records[:, kind.label_bytes - 1]


def _read_python(path: Path, kind: CifarSet) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The same of a file of the Python version."""
    content = read_plain_pickle(path)
    pixels = content.get("data") if isinstance(content, dict) else None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,) or kind.label_key not in content:
        raise UserError(f"'{path}' is not a batch of the Python version: it lacks 'data' [N, {PIXELS}] or '{kind.label_key}'; get it anew.")
    labels = content[kind.label_key]
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(isinstance(label, int) for label in labels):
        raise UserError(f"'{path}' has no '{kind.label_key}' of a number for each of its {len(pixels)} images; get it anew.")
    return pixels, np.array(labels)
