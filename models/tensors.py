"""Safetensors files: tensors and a header of strings, written atomically and checked when read.

A safetensors file holds no code, so reading one is safe, and no checksum, so a flipped bit in its data goes unseen.
Files written here carry the SHA-256 of their tensors and of their metadata (:mod:`common.checksums`), which reading verifies; files
from elsewhere are checked as far as their header allows (lengths, offsets, types).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.checksums import sealed, unsealed
from common.errors import CannotWrite, UserError
from common.files import replacing
from common.stages import staged

PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # a bare pickle; the zip archive around one that torch.save writes


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (on the CPU, memory-mapped, copied when written to) and the header's metadata of ``path``.

    Raises :class:`UserError` when the file is absent, is a pickle, is damaged, or when its tensors are not those that
    :func:`write_safetensors` wrote.
    """
    tensors, metadata, expected = _read(path, with_tensors=True)
    if expected is not None and expected != sha256_of_tensors(tensors):
        raise UserError(f"'{path}' is damaged or was edited: its tensors do not have the checksum in its header; write or fetch it again.")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata of ``path``; no tensor is read. Raises as :func:`read_safetensors`, less the checksum of the tensors."""
    return _read(path, with_tensors=False)[1]


@staged("write")
def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` and ``metadata`` to ``path``: atomic, synced, with the checksum in the header.

    Tensors are moved to the CPU and made contiguous; two that share memory are written twice. Raises
    :class:`UserError` when the file cannot be written.
    """
    stored = _separate(tensors)
    header = sealed(metadata or {}, sha256_of_tensors(stored))
    with replacing(path) as temporary:
        try:
            save_file(stored, temporary, metadata=header)
        except SafetensorError as error:  # a full disk arrives as this, not as an OSError
            raise CannotWrite(f"Cannot write '{path}': {error}.") from error


@staged("hash")
def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 over name, dtype, shape and bytes (row-major, little-endian) in sorted order of names.

    Depends neither on the device nor on strides nor on the order of the mapping.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, str], str | None]:
    """(tensors, metadata, the checksum that the tensors should have)."""
    if not path.is_file():
        raise UserError(f"'{path}' is a folder; expected a safetensors file." if path.is_dir() else f"No such file: '{path}'.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys() if with_tensors else []
            return {name: file.get_tensor(name) for name in names}, *unsealed(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as closed:
        return UserError(f"Cannot read '{path}': {closed.strerror}.")
    if start.startswith(PICKLE_STARTS):
        return UserError(f"'{path}' is a PyTorch pickle, not a safetensors file; save its tensors with safetensors.torch.save_file.")
    return UserError(f"'{path}' is not a whole safetensors file ({error}); it is truncated or damaged, fetch or write it again.")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two of which share a storage (safetensors refuses those that do)."""
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in storages:
            own = own.clone()
        storages.add(own.untyped_storage().data_ptr())
        separate[name] = own
    return separate
