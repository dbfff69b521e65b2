"""Safetensors files tensor by tensor: one is in memory at a time, whatever the size of the model.

The format: eight bytes with the length of the header (little-endian), the header, which is JSON (name -> dtype, shape,
data_offsets; and ``__metadata__``, strings), then the tensors, row-major and little-endian, one after the other without holes.
Files are read with plain reads because the pages of a memory map count as the process's memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from common.checksums import sealed, unsealed
from common.errors import UserError
from common.files import replacing
from common.stages import staged
from models.tensors import PICKLE_STARTS, sha256_of_tensors

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # bytes; safetensors refuses longer ones too
ALIGNMENT = 8  # of the tensors' first byte: the header is filled up with spaces


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Its size in a file."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"{shape} {str(self.dtype).removeprefix('torch.')}"


def spec_of(tensor: Tensor) -> Spec:
    """Shape and dtype of ``tensor``."""
    return Spec(tuple(tensor.shape), tensor.dtype)


class TensorFile:
    """A safetensors file whose header has been read and checked; :meth:`read` reads one tensor.

    ``specs`` are in the order of the data. ``checksum`` is what clipscope's own files have in their metadata for :func:`sha256_of`
    them. Raises :class:`UserError` when the file is absent, is a pickle, is truncated, or has a header that is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        entries, metadata, self._start = _read_header(path)
        self._offsets = {name: begin for name, (_, begin) in entries.items()}
        self.specs = {name: spec for name, (spec, _) in entries.items()}
        self.metadata, self.checksum = unsealed(path, metadata)

    @staged("read")
    def read(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor called ``name``, on the CPU, in memory of its own; with ``part`` those elements of it, flattened: [n]."""
        spec, offset = self.specs[name], self._offsets[name]
        tensor = torch.empty(spec.shape if part is None else part.stop - part.start, dtype=spec.dtype)
        skipped = 0 if part is None else part.start * spec.dtype.itemsize
        try:
            _fill(self.path, self._start + offset + skipped, _bytes_of(tensor))
        except OSError as error:
            raise UserError(f"Cannot read '{name}' in '{self.path}': {error.strerror or error}.") from error
        return tensor


class TensorWriter:
    """Write a safetensors file tensor by tensor, in any order; a context manager.

    ``specs`` says which tensors there will be. The file appears under its name when all have come and the block ends well;
    otherwise nothing is left, but what a kill leaves, and the next writer of the same file removes that. Space is taken at the
    start, so that a full disk is told before the work; that and all else that keeps the file from being written is a
    :class:`UserError`. The header carries the checksum of :mod:`models.tensors`.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.specs = dict(sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize))  # keeps every tensor aligned
        self.metadata = dict(metadata or {})
        self.written: set[str] = set()
        self._offsets: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._context = self._opened()
        self._context.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return self._context.__exit__(kind, error, trace)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with replacing(self.path) as temporary, temporary.open("r+b") as self._stream:
            self._write_header("0" * 64)
            yield
            absent = [name for name in self.specs if name not in self.written]
            if absent:
                raise ValueError(f"'{absent[0]}' and {len(absent) - 1} more were never written to '{self.path}'")
            self._stream.flush()
            self._write_header(sha256_of(TensorFile(temporary)))

    @staged("write")
    def write(self, name: str, tensor: Tensor) -> None:
        """Write the tensor called ``name``; its shape and dtype must be those that were announced."""
        if spec_of(tensor) != self.specs[name] or name in self.written:
            raise ValueError(f"'{name}' is {self.specs[name]} and comes once, not {spec_of(tensor)}")
        self.written.add(name)
        self._stream.seek(self._offsets[name])
        self._stream.write(_bytes_of(tensor.detach().cpu().contiguous()))

    def _write_header(self, checksum: str) -> None:
        """Write the header, which has the same length with every checksum, and take the space of the whole file."""
        begin, header = 0, dict[str, Any](__metadata__=sealed(self.metadata, checksum))
        places: dict[str, int] = {}
        for name, spec in self.specs.items():
            places[name] = begin
            header[name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, begin + spec.nbytes]}
            begin += spec.nbytes
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        start = 8 + len(text)
        self._offsets = {name: start + place for name, place in places.items()}
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._stream.fileno(), 0, start + begin)
        self._stream.seek(0)
        self._stream.write(len(text).to_bytes(8, "little") + text)
        self._stream.flush()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors that are in memory; equal ones to equal bytes, while the safetensors library draws the order of the metadata."""
    with TensorWriter(path, {name: spec_of(tensor) for name, tensor in tensors.items()}, metadata) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


class Readable(Protocol):
    """What has tensors and reads them one by one."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Every tensor's shape and dtype."""

    def read(self, name: str) -> Tensor:
        """The tensor called ``name``."""


def sha256_of(tensors: Readable) -> str:
    """:func:`models.tensors.sha256_of_tensors` of tensors that are read one after the other."""
    return sha256_of_tensors(_Lazily(tensors))


@dataclass(frozen=True)
class _Lazily(Mapping[str, Tensor]):
    """A mapping that reads each tensor when it is asked for."""

    tensors: Readable

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors.specs)

    def __len__(self) -> int:
        return len(self.tensors.specs)


def _read_header(path: Path) -> tuple[dict[str, tuple[Spec, int]], dict[str, str], int]:
    """Every tensor with its place in the data, in that order; the metadata; where the data begins in the file."""
    if not path.is_file():
        raise UserError(f"'{path}' is a folder; expected a safetensors file." if path.is_dir() else f"No such file: '{path}'.")
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            text = _header_text(stream, size)
        return _parsed(text, size)
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _header_text(stream: BinaryIO, size: int) -> bytes:
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("the header is longer than the file")
    if length > LONGEST_HEADER:
        raise ValueError(f"the header is longer than {LONGEST_HEADER} bytes")
    return stream.read(length)


def _parsed(text: bytes, size: int) -> tuple[dict[str, tuple[Spec, int]], dict[str, str], int]:
    """Check all that the format asks for. Raises ValueError with what is wrong."""
    header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repetition)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ does not hold strings")
    "".join((*header, *metadata, *metadata.values())).encode()  # which refuses halves of characters: they could not be written again
    entries = [(name, *_entry(name, value)) for name, value in header.items()]
    place, ordered = 0, {}
    for name, spec, begin, end in sorted(entries, key=lambda entry: entry[2:]):
        if begin != place or end - begin != spec.nbytes:
            raise ValueError(f"the offsets of '{name}' do not fit the tensor before it, or its size")
        ordered[name], place = (spec, begin), end
    start = 8 + len(text)
    if place != size - start:
        raise ValueError(f"there are {size - start} bytes of data, not {place}")
    return ordered, metadata, start


def _entry(name: str, value: Any) -> tuple[Spec, int, int]:
    """One tensor of the header: what it is, where it begins and ends."""
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise ValueError(f"'{name}' lacks its dtype, shape or data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"'{name}' has the unknown dtype {dtype!r}")
    numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not numbers or not all(type(number) is int and number >= 0 for number in shape + offsets):
        raise ValueError(f"the shape or data_offsets of '{name}' are not whole numbers")
    if prod(filter(None, shape)) * DTYPES[dtype].itemsize >= 2**63:
        raise ValueError(f"the shape of '{name}' is beyond all memory")
    return Spec(tuple(shape), DTYPES[dtype]), offsets[0], offsets[1]


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the header names a tensor twice")
    return found


def _damaged(path: Path, reason: str) -> UserError:
    with path.open("rb") as stream:
        if stream.read(4).startswith(PICKLE_STARTS):
            return UserError(f"'{path}' is a PyTorch pickle, not a safetensors file; save its tensors with safetensors.torch.save_file.")
    return UserError(f"'{path}' is not a whole safetensors file ({reason}); it is truncated or damaged, fetch or write it again.")


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat) if tensor.numel() else memoryview(b"")


def _fill(path: Path, offset: int, buffer: memoryview) -> None:
    """Read from ``offset`` on until ``buffer`` is full: one read gives at most 2 GB. Raises OSError when the file has become shorter."""
    handle = os.open(path, os.O_RDONLY)
    try:
        while len(buffer):
            count = os.preadv(handle, [buffer], offset)
            if not count:
                raise OSError("the file has become shorter")
            buffer, offset = buffer[count:], offset + count
    finally:
        os.close(handle)
