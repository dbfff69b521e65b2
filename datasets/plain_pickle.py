"""Pickles of plain data, read without running anything that they name.

A pickle is a program: it may name any function of the machine and call it. Some data sets come as pickles nevertheless (CIFAR's
Python version, the ground truth of the revisited Oxford and Paris). Here, what a pickle can name is the short table
:data:`CONSTRUCTORS`, each entry a function of this file that makes a number or an array after looking at what it is given; any
other name is refused before it is looked up. Nor is NumPy's own ``__setstate__`` trusted with the contents, which believes what it
is told about memory: arrays are made from their bytes when their size fits.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.decoding import reason
from datasets.image_files import printable

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_LENGTHS = {  # of the number that says how long an argument is
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)


def read_plain_pickle(path: Path) -> Any:
    """The dictionaries, lists, tuples, text, bytes, numbers and NumPy arrays of a pickle, whichever Python and protocol wrote it.

    Text without a declared encoding, which is what Python 2 wrote, is read as Latin-1, so that ``text.encode("latin-1")`` is
    what was written, byte for byte. Anything that is not plain data, and a damaged file, is a :class:`UserError`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        _check_places(data)
        return _settled(_PlainUnpickler(io.BytesIO(data), encoding="latin-1").load(), {})
    except NotPlain as error:
        raise UserError(f"'{path}' {error}; refused, because only plain data is read from a pickle.") from error
    except Exception as error:  # a damaged pickle raises nearly every type
        raise UserError(f"'{path}' is no whole pickle of plain data ({reason(error)}); get it anew.") from error


def _check_places(data: bytes) -> None:
    """A ``ValueError`` when something is put into a place beyond the file's length: the unpickler takes memory for all places below it."""
    for place in _places(data):
        if place > len(data):
            raise ValueError(f"place {place}")


def _places(data: bytes) -> Iterator[int]:
    """Where a pickle puts what it may need again. :func:`pickletools.genops` knows too, but refuses some texts of Python 2."""
    stream = io.BytesIO(data)
    while (opcode := _OPCODES.get(stream.read(1))) and opcode.name != "STOP":  # the unpickler tells of an end without it
        name, n = opcode.name, opcode.arg.n if opcode.arg else 0
        if n == pickletools.UP_TO_NEWLINE:
            argument = stream.readline()
            if name in ("GLOBAL", "INST"):
                stream.readline()
        else:
            argument = stream.read(n if n >= 0 else int.from_bytes(stream.read(_LENGTHS[n]), "little"))
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            yield int(argument) if name == "PUT" else int.from_bytes(argument, "little")


class NotPlain(Exception):
    """What is found in a pickle that is not plain data: the end of a sentence about the file."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The constructor that stands for what the pickle names."""
        if (module, name) not in CONSTRUCTORS:
            raise NotPlain(f"holds a reference to {printable(f'{module}.{name}'.encode('utf-8', 'backslashreplace'))}")
        return CONSTRUCTORS[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse a reference to something outside the file."""
        raise NotPlain("holds a reference to something outside of it")


class _Dtype:
    """Stands for a ``numpy.dtype``: numbers and text only, neither objects nor records."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9]\d{0,5}", code)):
            raise NotPlain(f"holds an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a ``numpy.ndarray`` until its contents have been read."""

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment]  # as an array

    def __init__(self) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        self.array = _filled(data, dtype, shape, "F" if by_columns else "C")


def _filled(data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    """The array of these contents; a ``ValueError`` when they don't fit."""
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a type")
    content = data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))
    if min(shape, default=0) < 0 or len(content) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError(f"an array {list(shape)} of {dtype.dtype} with {len(content)} bytes")
    return np.ndarray(shape, dtype.dtype, content, order=order).copy(order="K")


_NDARRAY = object()  # stands for the class numpy.ndarray, which is named but never called


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """``numpy.core.multiarray._reconstruct``: an empty array, whose contents follow."""
    if kind is not _NDARRAY:
        raise ValueError("an array of another class")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _Array:
    """``numpy.core.numeric._frombuffer``: an array of protocol 5."""
    made = _Array()
    made.array = _filled(data, dtype, shape, "F" if order == "F" else "C")
    if order == "K" and axis_order is not None:
        made.array = made.array.transpose(axis_order)
    return made


def _scalar(dtype: Any, data: Any) -> np.generic:
    """``numpy.core.multiarray.scalar``: a number as NumPy keeps it."""
    return _filled(data, dtype, (), "C")[()]  # type: ignore[return-value]  # of no dimension, so a number


def _dtype(code: Any, align: Any = False, copy: Any = False) -> _Dtype:
    """``numpy.dtype``."""
    return _Dtype(code)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin-1")


def _bytes() -> bytes:
    """``bytes()``: how Python 3 writes empty bytes for Python 2."""
    return b""


def _complex(real: Any, imaginary: Any) -> complex:
    """``complex``."""
    return complex(float(real), float(imaginary))


def _constructors() -> dict[tuple[str, str], Any]:
    """Every name that may be in a pickle, with what stands for it here."""
    functions: dict[tuple[str, str], Any] = {("numpy", "dtype"): _dtype, ("_codecs", "encode"): _encode}
    for core in ("numpy.core", "numpy._core"):  # before NumPy 2 and since
        functions[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        functions[f"{core}.multiarray", "scalar"] = _scalar
        functions[f"{core}.numeric", "_frombuffer"] = _frombuffer
    for builtins in ("__builtin__", "builtins"):  # Python 2 and 3
        functions[builtins, "bytes"] = _bytes
        functions[builtins, "complex"] = _complex
    # Not the functions themselves: a pickle can set attributes of what it is given, and these wrappers have none to be set.
    return {("numpy", "ndarray"): _NDARRAY} | {name: function.__call__ for name, function in functions.items()}


CONSTRUCTORS = _constructors()


def _settled(value: Any, seen: dict[int, Any]) -> Any:
    """``value`` with every array in the place of what stood for it; :class:`NotPlain` when something else is left.

    Lists and dictionaries are changed in place. ``seen`` are those dealt with, by their identity: a pickle can hold one thing in
    many places, and a list within itself.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, _Array):
        return value.array
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, list):
        seen[id(value)] = value
        value[:] = [_settled(item, seen) for item in value]
    elif isinstance(value, dict):
        seen[id(value)] = value
        value.update({_settled(key, seen): _settled(item, seen) for key, item in value.items()})
    elif isinstance(value, tuple):
        seen[id(value)] = tuple(_settled(item, seen) for item in value)
    else:
        raise NotPlain(f"holds an object of the type {type(value).__name__}")
    return seen[id(value)]
