"""What the table of downloads is made of, and how a user's own table is read.

Paths are relative to the data folder and written with ``/``. Nothing here touches the network or the disk, but for reading a
manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from common.errors import UserError
from common.files import read_json

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".gz")
ARCHIVE_FOLDER = "archives"
SCHEMES = ("http://", "https://", "ftp://", "file://")


@dataclass(frozen=True)
class Item:
    """A file or folder that a data set has below the data folder."""

    path: str
    inner: str | None = None  # where the archive has it; None: under the last part of path
    files: int = 0  # for a folder: it holds at least so many files
    size: int | None = None  # of a file: its exact number of bytes
    checksum: str | None = None  # of a file: "md5:..." or "sha256:..."
    others: tuple[str, ...] = ()  # other places, or other forms of it, that are read too

    @property
    def in_archive(self) -> str:
        """Where the archive has it."""
        return self.inner if self.inner is not None else self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Download:
    """One file to fetch, and the items that come of it.

    A file that has the name of its only item is kept as it is; any other one is an archive (or, with ``.gz``, a compressed
    file) and is unpacked: of what it holds only the items are kept. Sizes are in bytes and serve to tell how much space is
    needed, so that they may be rough.
    """

    url: str
    items: tuple[Item, ...]
    size: int = 0
    checksum: str | None = None  # "md5:..." or "sha256:...", where one is published
    name: str = ""  # of the file; empty: the last part of the URL
    unpacked: int = 0  # bytes of the items; 0: as many as in the file, as with images
    nested: str = ""  # the archive in the archive that has the items
    by_hand: bool = False  # a browser is needed; the URL is the page
    only: str = ""  # the split convention that needs it; empty: all do

    @property
    def filename(self) -> str:
        """The name of the file."""
        return self.name or self.url.partition("?")[0].rpartition("/")[2]

    @property
    def is_plain(self) -> bool:
        """Whether the file is kept as it is."""
        return len(self.items) == 1 and self.items[0].path.rpartition("/")[2] == self.filename

    @property
    def is_archive(self) -> bool:
        """Whether the file is one that is unpacked here."""
        return not self.is_plain and self.filename.endswith(ARCHIVES)

    @property
    def space(self) -> int:
        """Bytes of the items, about."""
        return self.unpacked or self.size


@dataclass(frozen=True)
class Entry:
    """All there is to say of getting one data set."""

    name: str
    home: str  # its page
    licence: str  # a note for orientation, not advice
    downloads: tuple[Download, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader should know, or do by hand
    hub: str = ""  # ORG/NAME: it is a set of the Hugging Face hub, not of downloads
    aliases: tuple[str, ...] = ()  # names of data sets that are made of the same files

    def needed(self, convention: str | None = None) -> list[Download]:
        """The downloads that a split convention needs; None: the default one."""
        return [download for download in self.downloads if download.only in ("", convention)]

    @property
    def by_hand(self) -> bool:
        """Whether the default convention needs something that no program may fetch."""
        return any(download.by_hand for download in self.needed())

    @property
    def size(self) -> int:
        """Bytes to fetch, about."""
        return sum(download.size for download in self.needed())


def read_manifest(path: Path) -> dict[str, Entry]:
    """A user's own table: a JSON list of objects with the fields of :class:`Entry`, by name.

    For machines that reach a mirror only, e.g.::

        [{"name": "DTD", "home": "http://mirror.lab/dtd", "licence": "research",
          "downloads": [{"url": "http://mirror.lab/dtd-r1.0.1.tar.gz", "size": 625239812,
                         "checksum": "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
                         "items": [{"path": "dtd/images", "inner": "dtd/images", "files": 5640},
                                   {"path": "dtd/labels", "inner": "dtd/labels", "files": 30}]}]}]
    """
    listed = read_json(path)
    try:
        entries = [_made(Entry, each) for each in listed]
    except (TypeError, ValueError) as error:
        raise UserError(f"'{path}' is not a manifest of downloads: {error}.") from error
    for entry in entries:
        for download in entry.downloads:
            _check(download, path)
    return {entry.name: entry for entry in entries}


def _made(kind: Any, value: Any) -> Any:
    """The dataclass ``kind`` of a JSON object; lists become tuples, of the dataclass that the field is a tuple of."""
    if kind is str:
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no object with the fields of {kind.__name__}")
    known = {field.name for field in fields(kind)}
    if unknown := set(value) - known:
        raise ValueError(f"{kind.__name__} has no '{min(unknown)}'")
    hints = get_type_hints(kind)
    return kind(**{key: _field(hints[key], each) for key, each in value.items()})


def _field(hint: Any, value: Any) -> Any:
    kinds: dict[Any, Any] = {str: str, int: int, bool: bool, str | None: (str, type(None)), int | None: (int, type(None))}
    wanted = kinds.get(hint, list)
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{value!r} is not of the kind that it should be")
    return tuple(_made(hint.__args__[0], each) for each in value) if wanted is list else value


def _check(download: Download, path: Path) -> None:
    """A manifest may not write outside the data folder, and names kinds that are known."""
    places = [*([] if download.by_hand else [download.filename]), *(item.path for item in download.items)]
    if not download.items or any(not place or place.startswith("/") or ".." in place.split("/") for place in places):
        raise UserError(f"'{path}': every download of '{download.url}' needs a file name and items with paths below the data folder.")
    if not download.url.startswith(SCHEMES):
        raise UserError(f"'{path}': the address '{download.url}' must begin with {', '.join(SCHEMES)}.")
    if "/" in download.filename:
        raise UserError(f"'{path}': '{download.filename}' is not the name of a file.")
    for checksum in (download.checksum, *(item.checksum for item in download.items)):
        if checksum is not None and checksum.partition(":")[0] not in ("md5", "sha256"):
            raise UserError(f"'{path}': the checksum '{checksum}' must begin with 'md5:' or 'sha256:'.")
    if not (download.is_plain or download.is_archive or download.by_hand):
        raise UserError(f"'{path}': '{download.filename}' is not an archive that can be unpacked ({', '.join(ARCHIVES)}).")
