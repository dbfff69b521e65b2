"""Writers of the files of the data sets that are stored as arrays, each in its published layout and format.

Pixels are uint8 [N, H, W] or [N, H, W, 3] and labels [N], numbered from 0 in the order of the data set's own classes.
"""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from datasets.task import Task


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    """``n`` images of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_idx(path: Path, values: np.ndarray) -> Path:
    """An idx file of unsigned bytes; compressed when the name ends in .gz."""
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    return write(path, gzip.compress(data) if path.suffix == ".gz" else data)


def write_idx_pair(folder: Path, start: str, pixels: np.ndarray, labels: np.ndarray, end: str = "") -> None:
    """Both files of a split, e.g. ``start`` "train" or "emnist-letters-test"; ``end`` "" or ".gz"."""
    write_idx(folder / f"{start}-images-idx3-ubyte{end}", pixels)
    write_idx(folder / f"{start}-labels-idx1-ubyte{end}", labels)


def write_cifar_binary(path: Path, pixels: np.ndarray, *labels: np.ndarray) -> Path:
    """A batch of the binary version; for CIFAR100, coarse labels before the fine ones."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return write(path, np.column_stack([*labels, planes]).astype(np.uint8).tobytes())


def write_cifar_python(path: Path, pixels: np.ndarray, **labels: np.ndarray) -> Path:
    """A batch of the Python version, as Python 2 pickled it; ``labels`` by their key."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    names = [f"picture_s_{number:06d}.png" for number in range(len(pixels))]
    lists = {key: values.tolist() for key, values in labels.items()}
    return write(path, python2_pickle({"data": planes, **lists, "batch_label": "a batch", "filenames": names}))


def write_svhn(path: Path, pixels: np.ndarray, labels: np.ndarray) -> Path:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    written = np.where(labels == 0, 10, labels).astype(np.uint8).reshape(-1, 1)
    savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": written}, do_compression=True)
    return path


def write_stl10(folder: Path, split: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    write(folder / f"{split}_X.bin", pixels.transpose(0, 3, 2, 1).tobytes())
    write(folder / f"{split}_y.bin", (labels + 1).astype(np.uint8).tobytes())


def write_pcam(folder: Path, split: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """``split`` as the files say it: train, valid or test."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    for key, values in {"x": pixels, "y": labels.astype(np.uint8).reshape(-1, 1, 1, 1)}.items():
        with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{key}.h5", "w") as file:
            file.create_dataset(key, data=values, chunks=(2, *values.shape[1:]))


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def python2_pickle(value: Any, core: str = "numpy.core") -> bytes:
    """What Python 2 writes with protocol 2 for dictionaries, lists, byte strings (given as text), numbers and arrays."""
    return b"\x80\x02" + _python2(value, core) + b"."


def _python2(value: Any, core: str) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key, core) + _python2(item, core) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(_python2(item, core) for item in value) + b"e"
    if isinstance(value, str):
        return _python2_bytes(value.encode("latin-1"))
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, np.ndarray):
        return _python2_array(value, core)
    return b"J" + struct.pack("<i", value)


def _python2_bytes(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def _python2_array(array: np.ndarray, core: str) -> bytes:
    made = f"c{core}.multiarray\n_reconstruct\ncnumpy\nndarray\n".encode() + b"K\x00\x85U\x01b\x87R"
    order, code = array.dtype.str[0], array.dtype.str[1:]
    dtype = b"cnumpy\ndtype\n" + _python2_bytes(code.encode()) + b"K\x00K\x01\x87R(K\x03" + _python2_bytes(order.encode())
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(_python2(length, core) for length in array.shape) + b"t"
    return made + b"(K\x01" + shape + dtype + b"\x89" + _python2_bytes(array.tobytes()) + b"tb"


def assert_holds(task: Task, pixels: np.ndarray, labels: np.ndarray) -> None:
    """The task has exactly these images with these labels, in this order."""
    assert task.labels.dtype == np.int64
    assert task.labels.tolist() == labels.tolist()
    assert len(task.samples) == len(pixels)
    for index, expected in enumerate(pixels):
        image = task.samples.image(index)
        assert image.mode == "RGB"
        grey = expected[..., None] if expected.ndim == 2 else expected
        assert np.array_equal(np.asarray(image), np.broadcast_to(grey, (*expected.shape[:2], 3)))
