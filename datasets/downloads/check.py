"""What of a data set is on the disk, and whether it is what it should be.

Archives are gone once they are unpacked and with them their checksums: folders are known by the number of files in them, single
files by their length and, where it is published, their checksum.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from datasets.downloads.entries import Download, Entry, Item
from datasets.downloads.fetch import checksum_of
from datasets.downloads.hub import hub_copy, repository_of


def place(item: Item, data_dir: Path) -> Path | None:
    """Where an item is, in its own place or another one that is read too; None when it is not there."""
    return next((data_dir / path for path in (item.path, *item.others) if (data_dir / path).exists()), None)


def missing_items(downloads: Iterable[Download], data_dir: Path) -> list[Item]:
    """The items that are nowhere."""
    return [item for download in downloads for item in download.items if place(item, data_dir) is None]


def state(entry: Entry, data_dir: Path, convention: str | None = None) -> str:
    """``complete``, ``partial`` or ``missing``, by what is there; what is in the files is not looked at."""
    if repository := repository_of(entry, convention):
        return "complete" if hub_copy(repository, data_dir).exists() else "missing"
    needed = entry.needed(convention)
    missing = missing_items(needed, data_dir)
    if len(missing) == sum(len(download.items) for download in needed):
        return "missing"
    return "partial" if missing else "complete"


def problem(item: Item, path: Path) -> str | None:
    """What is wrong with the item at ``path``, as the end of a sentence about it; None when nothing is."""
    if not path.exists():
        return "is missing"
    if path.is_dir() != bool(item.files):
        return f"is a {'folder' if path.is_dir() else 'file'}"
    if item.files:
        found = _count(path)
        return f"has {found:,} files, not {item.files:,}" if found < item.files else None
    length = path.stat().st_size
    if length == 0 or item.size not in (None, length):
        return f"has {length:,} bytes" + (f", not {item.size:,}" if item.size else "")
    if item.checksum and (found_sum := checksum_of(path, item.checksum.partition(":")[0])) != item.checksum:
        return f"has the checksum {found_sum}, not {item.checksum}"
    return None


def problems(entry: Entry, data_dir: Path, convention: str | None = None) -> list[str]:
    """All that is wrong with what is there of a data set, one sentence each; what is missing counts where a part is there."""
    if repository_of(entry, convention):
        return []  # the hub's client has checked it on arrival
    wrong = []
    for item in (item for download in entry.needed(convention) for item in download.items):
        path = place(item, data_dir)
        if path is not None and path != data_dir / item.path:
            continue  # another form of it, of which the table knows no more
        if reason := problem(item, path or data_dir / item.path):
            wrong.append(f"'{data_dir / item.path}' {reason}")
    return wrong


def _count(folder: Path) -> int:
    """The number of files below ``folder``, at all depths."""
    return sum(len(files) for _, _, files in os.walk(folder))
