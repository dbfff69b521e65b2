"""Images that lie in files: a compact list of their names, and decoding to RGB."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from datasets.task import UnreadableImage


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files below one folder, as :class:`~datasets.task.Samples`.

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

    def image(self, index: int) -> Image.Image:
        """The image as RGB; raises :class:`UnreadableImage`, whatever is wrong with the file."""
        try:
            return decode(self.path(index).read_bytes())
        except Exception as error:  # decoders raise nearly every type on damaged files
            raise UnreadableImage(self.sample_id(index), _reason(error)) from error

    def sample_id(self, index: int) -> str:
        """The path relative to the folder; what cannot be printed on one line is escaped."""
        return printable(self._name(index))

    def digest(self, index: int) -> bytes:
        """SHA-256 of the file's bytes; a file that cannot be read counts as an empty one."""
        try:
            return hashlib.sha256(self.path(index).read_bytes()).digest()
        except OSError:
            return hashlib.sha256().digest()


def printable(name: bytes) -> str:
    """A file name as text for one line of a UTF-8 file: control characters, line ends and bytes that are no text are escaped."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(repr(sign)[1:-1] if category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image as RGB, as the CLIP and torchvision pipelines see it.

    An EXIF orientation is not applied and an alpha channel is dropped, because the published numbers were made so.
    Raises whatever the decoder raises.
    """
    if not data:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that image files have, as 8-bit RGB.

    Pillow clips 16-bit grey to 255, which makes nearly every such picture white; here its full range is scaled, the same
    for all images: ``round(value / 257)``. Pillow opens some 16-bit files as mode ``I``.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels of floating-point numbers have no agreed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow's advice for palettes with transparent entries
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """What is wrong with a file, on one line and without the machine's paths."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
