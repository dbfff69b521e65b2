"""Whether a MATLAB file is whole, before scipy reads it: on one flipped bit its reader can end the whole process.

The format is the public one ("MAT-File Format", level 5, MathWorks): a header of 128 bytes, then elements, each a tag (type,
number of bytes) and data. A variable is an element of the type matrix, perhaps compressed, that holds elements: flags with its class,
dimensions, name, and then numbers, text, or a matrix for each cell or member.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # bytes of a number, by type
TEXTS = (1, 2, 4, 16, 17, 18)  # types that text comes in: bytes, UINT16, UTF-8, UTF-16, UTF-32
CELL, STRUCT, CHAR, NUMBERS = 1, 2, 4, range(6, 16)  # classes of matrices
COMPLEX = 0x800  # the flag of a second, imaginary part
DEEPEST = 20  # cells within cells


def check_mat(path: Path, variables: Collection[str]) -> None:
    """Go through the ``variables`` of the file; ValueError or zlib.error with what is not whole. OSError when it cannot be read."""
    content = memoryview(path.read_bytes())
    if 0 in bytes(content[:4]):
        return  # version 4, which has no structure to speak of
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None:
        raise ValueError("it has no header of a MATLAB file")
    variable = Elements(content[128:], order)
    while variable.data:
        kind, data = variable.next(MATRIX, COMPRESSED)
        matrix = Elements(memoryview(zlib.decompress(data)), order).next(MATRIX)[1] if kind == COMPRESSED else data
        _check_matrix(matrix, order, variables)


class Elements:
    """The elements in ``data``, one after the other; what is taken is no longer in it."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data, self.order = data, order

    def next(self, *kinds: int) -> tuple[int, memoryview]:
        """(type, data) of the next one, which must be of one of ``kinds`` where any are given. ValueError when it is not there in full."""
        if len(self.data) < 8:
            raise ValueError("it is cut off")
        kind, size = struct.unpack(f"{self.order}2I", self.data[:8])
        begin = 8
        if kind >> 16:  # a small one: the number of bytes in the upper half, the data in the place of the size
            kind, size, begin, after = kind & 0xFFFF, kind >> 16, 4, 8
        else:
            after = begin + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > (8 if begin == 4 else len(self.data)):
            raise ValueError(f"an element of {size} bytes goes beyond its end")
        if kinds and kind not in kinds:
            raise ValueError(f"an element is of the type {kind}")
        found, self.data = self.data[begin : begin + size], self.data[after:]
        return kind, found


def _check_matrix(data: memoryview, order: str, wanted: Collection[str] | None = None, depth: int = 0) -> None:
    if not data and depth:
        return  # an empty cell
    parts = Elements(data, order)
    (flags, _), shape = struct.unpack(f"{order}2I", _of_size(parts.next(UINT32)[1], 8)), parts.next(INT32)[1]
    dimensions = struct.unpack(f"{order}{len(shape) // 4}i", _of_size(shape, len(shape) // 4 * 4))
    name = bytes(parts.next(INT8)[1]).decode("latin-1")
    if wanted is not None and name not in wanted:
        return
    if not 2 <= len(dimensions) <= 32 or min(dimensions) < 0 or depth > DEEPEST:
        raise ValueError(f"'{name}' has the dimensions {list(dimensions)}")
    _check_content(parts, order, flags, math.prod(dimensions), depth)


def _check_content(parts: Elements, order: str, flags: int, count: int, depth: int) -> None:
    """What follows the name: numbers for each of ``count`` places, or text, or matrices."""
    kind = flags & 0xFF
    if kind in NUMBERS:
        for _ in range(2 if flags & COMPLEX else 1):
            type_, numbers = parts.next(*SIZES)
            _of_size(numbers, count * SIZES[type_])
    elif kind == CHAR:
        parts.next(*TEXTS)
    elif kind in (CELL, STRUCT):
        for _ in range(count * (_members(parts, order) if kind == STRUCT else 1)):
            _check_matrix(parts.next(MATRIX)[1], order, None, depth + 1)
    else:
        raise ValueError(f"a matrix is of the class {kind}, which no list of a data set has")


def _members(parts: Elements, order: str) -> int:
    """How many members a struct array has, whose names are of one length, padded with zeros."""
    (length,) = struct.unpack(f"{order}i", _of_size(parts.next(INT32)[1], 4))
    names = parts.next(INT8)[1]
    if length < 1 or len(names) % length:
        raise ValueError(f"{len(names)} bytes of names of members, each of {length}")
    if any(0 not in bytes(names[at : at + length]) for at in range(0, len(names), length)):
        raise ValueError("a name of a member has no end")
    return len(names) // length


def _of_size(data: memoryview, size: int) -> memoryview:
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes stand where {size} are expected")
    return data
