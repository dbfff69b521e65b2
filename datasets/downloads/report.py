"""What the user reads: the table of all data sets, and the instructions for one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from datasets.downloads.check import place, state
from datasets.downloads.entries import Download, Entry
from datasets.downloads.get import gigabytes, place_of
from datasets.prompts import prompt_names
from datasets.registry import SOURCES, conventions_of

COMMAND = "python download_datasets.py"
OTHER_SPLITS = {"": "", "coop": ", for the splits @coop only"}


def table(entries: Iterable[Entry], data_dir: Path) -> str:
    """One line per data set: name, what is there, bytes to fetch, how it is got, licence."""
    rows = [("data set", "there", "size", "how", "licence")]
    rows += [(_names(entry), state(entry, data_dir), _size(entry), _how(entry), entry.licence) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:{widths[3]}}  {row[4]}".rstrip() for row in rows
    )


def instructions(entry: Entry, data_dir: Path) -> str:
    """All about one data set: its page, how it is got, and which files a loader looks for."""
    lines = [f"{_names(entry)}  ({state(entry, data_dir)})", f"  page: {entry.home}", f"  licence: {entry.licence}"]
    lines += _splits((*entry.aliases, entry.name))
    fetched = [download for download in entry.needed() if not download.by_hand]
    if fetched or entry.hub:
        lines.append(f"  fetched by: {_command(entry, data_dir)}")
    lines += [f"    {download.url}{_sum(download)}" for download in fetched]
    lines += _by_hand(entry, data_dir)
    lines += [line for note in entry.notes for line in _wrapped(note.replace("{data}", str(data_dir)))]
    if entry.downloads:
        lines.append("  loaders look for:")
        lines += [line for download in entry.downloads for line in _wanted(download, data_dir)]
    return "\n".join(lines)


def _splits(names: Iterable[str]) -> list[str]:
    """The split conventions, the default first, and the prompt sets."""
    name = next((name for name in names if name in SOURCES), None)
    if name is None:
        return []
    lines = [f"  splits: {name} ({default}): {meaning}" for default, meaning in list(conventions_of(name).items())[:1]]
    lines += [f"          {name}@{convention}: {meaning}" for convention, meaning in list(conventions_of(name).items())[1:]]
    return [*lines, f"  prompts: {', '.join(prompt_names(name)) or 'one of its own'}"]


def by_hand_line(entry: Entry, data_dir: Path) -> str:
    """One sentence for what has to be got by hand."""
    return f"{entry.name} has files that you have to get yourself: see {COMMAND} --list {entry.name} --data-dir {data_dir}"


def _by_hand(entry: Entry, data_dir: Path) -> list[str]:
    by_hand = [download for download in entry.downloads if download.by_hand]
    lines = []
    for only in dict.fromkeys(download.only for download in by_hand):
        lines.append(f"  by hand{OTHER_SPLITS[only]}:")
        lines += [line for download in by_hand if download.only == only for line in _step(download, entry, data_dir)]
    if any(download.is_archive for download in by_hand):
        lines.append(f"    and then, to check and unpack it: {_command(entry, data_dir)}")
    return lines


def _step(download: Download, entry: Entry, data_dir: Path) -> list[str]:
    if download.is_plain or download.is_archive:
        where = place_of(download, entry, data_dir)
        return [f"    get {download.filename} from {download.url}", f"      and save it as {where}{_sum(download)}"]
    return [f"    get {' and '.join(str(data_dir / item.path) for item in download.items)}", f"      from {download.url}"]


def _wrapped(note: str) -> list[str]:
    """A note in lines that fit a terminal; command lines, which are indented, stay whole for copying."""
    return [f"  {note}"] if note.startswith(" ") else textwrap.wrap(note, 110, initial_indent="  ", subsequent_indent="  ")


def _command(entry: Entry, data_dir: Path) -> str:
    return f"{COMMAND} --datasets {entry.name} --data-dir {data_dir}"


def _wanted(download: Download, data_dir: Path) -> list[str]:
    lines = []
    for item in download.items:
        what = f"{item.path}/ ({item.files:,} files or more)" if item.files > 1 else f"{item.path}/" if item.files else item.path
        mark = "there  " if place(item, data_dir) else "missing"
        more = "".join(f" or {other}" for other in item.others) + (f"  [@{download.only}]" if download.only else "")
        lines.append(f"    {mark}  {data_dir}/{what}{more}")
    return lines


def _how(entry: Entry) -> str:
    if not entry.by_hand:
        return "fetched"
    part = "" if all(download.by_hand for download in entry.needed()) else "partly "
    return f"{part}by hand: see --list {entry.name}"


def _names(entry: Entry) -> str:
    return ", ".join(entry.aliases) or entry.name


def _size(entry: Entry) -> str:
    return gigabytes(entry.size) if entry.size else "?"


def _sum(download: Download) -> str:
    return f"  ({download.checksum})" if download.checksum else "  (no checksum is published)"
