"""Images that lie in files: a compact list of their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from datasets.samples import EncodedSamples


@dataclass(frozen=True, eq=False)
class ImageFiles(EncodedSamples):
    """Image files below one folder.

    All names lie in one buffer. A list of a million strings would be copied into every loader process, because counting
    references writes to the pages that a fork shares; two objects without references inside are not.
    """

    root: str  # absolute
    names: bytes  # paths relative to root with "/" between folders, one after the other
    ends: NDArray[np.int64]  # where each name ends

    @classmethod
    def of(cls, root: Path, names: Sequence[bytes]) -> ImageFiles:
        """The files ``names``, relative to ``root``, in the given order. No file is touched."""
        ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
        return cls(str(root.absolute()), b"".join(names), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def _name(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        start = int(self.ends[index - 1]) if index else 0
        return self.names[start : int(self.ends[index])]

    def path(self, index: int) -> Path:
        """Where the file is."""
        return Path(self.root, os.fsdecode(self._name(index)))

    def read(self, index: int) -> bytes:
        """See :class:`~datasets.samples.EncodedSamples`."""
        with open(self._location(index), "rb", buffering=0) as file:  # noqa: PTH123 (a Path takes longer to make than a small file to read)
            return file.readall()

    def stat(self, index: int) -> os.stat_result:
        """Size, time of modification and so on of the file; raises an ``OSError``."""
        return os.stat(self._location(index))  # noqa: PTH116

    def _location(self, index: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self._name(index))  # noqa: PTH118

    def sample_id(self, index: int) -> str:
        """The path relative to the folder; what cannot be printed on one line is escaped."""
        return printable(self._name(index))


def printable(name: bytes) -> str:
    """A file name as text for one line of a UTF-8 file: control characters, line ends and bytes that are no text are escaped."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(repr(sign)[1:-1] if category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)
