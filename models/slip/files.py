"""What is in a SLIP checkpoint, read without running anything that is stored in it.

The released files are ``torch.save`` of the whole training: ``state_dict``, the optimiser's state, the best accuracy, and ``args``,
the command line as an ``argparse.Namespace``, with the output folder as a ``pathlib.PosixPath``. Of these only ``state_dict`` matters.
``torch.load(weights_only=True)`` makes tensors and plain containers alone; for the few other names that such files hold,
:data:`UNREAD`, it is given a class that takes whatever the file says and keeps nothing of it, and any further name is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from models.tensors import read_safetensors

_NUMPY = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # before NumPy 2 and since: learning rates
_PATHS = ("pathlib.PosixPath", "pathlib._local.PosixPath")  # before Python 3.13 and since: the output folder
UNREAD = ("argparse.Namespace", *_PATHS, *_NUMPY)


class _Unread:
    """Stands for a value beside the tensors."""

    __slots__ = ()

    def __new__(cls, *_: object) -> _Unread:
        """An empty object, whatever the file gives."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Keep nothing."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a SLIP checkpoint by their released names, without the ``module.`` of DistributedDataParallel.

    ``path`` is a ``.safetensors`` file or what ``torch.save`` wrote: a state dict, by itself or under ``state_dict``. The tensors
    are memory-mapped where the format allows, so the optimiser's, twice as large, are never read. Raises :class:`UserError` when the
    file is absent or damaged, holds no tensors, or names anything whose reading could run code.
    """
    found = read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"'{path}' holds no state dict; a mapping from names to tensors is expected, by itself or under 'state_dict'.")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _read_pickle(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"No such file: '{path}'.")
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in UNREAD]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle raises nearly every type
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> UserError:
    named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named:
        return UserError(f"'{path}' was not loaded: it names '{named[1]}', whose reading could run code; save its tensors as safetensors.")
    return UserError(f"'{path}' is not a readable PyTorch file; it is truncated, damaged or of another kind.")
