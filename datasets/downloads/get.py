"""Get one data set: fetch what is missing of it, unpack it, and take away the archives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.files import ensure_folder, locked
from datasets.downloads.check import missing_items, problem
from datasets.downloads.entries import ARCHIVE_FOLDER, Download, Entry
from datasets.downloads.fetch import checksum_of, fetch, remaining
from datasets.downloads.hub import fetch_from_hub, repository_of
from datasets.downloads.unpack import TornArchive, UnpackError, unpack


def get(entry: Entry, convention: str | None, data_dir: Path, *, keep_archives: bool = False, say: Callable[[str], None] = print) -> bool:
    """Get what ``entry`` has and ``data_dir`` has not; False when something is left that has to be got by hand.

    An archive that lies in the archive folder is used in place of fetching it, whoever put it there. A :class:`UserError` or
    an ``OSError`` tells what went wrong; what was got before it stays.
    """
    if repository := repository_of(entry, convention):
        say(f"{entry.name}: {repository} of the Hugging Face hub")
        fetch_from_hub(repository, data_dir)
        return True
    with locked(ensure_folder(data_dir) / entry.name):
        for download in entry.needed(convention):
            if missing_items([download], data_dir) and _is_at_hand(download, entry, data_dir):
                say(f"{entry.name}: {download.filename}")
                _get_download(download, entry, data_dir, keep_archives)
    _remove_if_empty(data_dir / ARCHIVE_FOLDER / entry.name)
    return not missing_items(entry.needed(convention), data_dir)


def place_of(download: Download, entry: Entry, data_dir: Path) -> Path:
    """Where the file of ``download`` goes: to its own place, or for an archive to the archive folder."""
    return data_dir / (download.items[0].path if download.is_plain else f"{ARCHIVE_FOLDER}/{entry.name}/{download.filename}")


def check_space(wanted: Iterable[tuple[Entry, str | None]], data_dir: Path, *, keep_archives: bool = False) -> None:
    """A :class:`UserError` when the disk has no room for all of it.

    Archives go one after the other, so that besides everything that stays there must be room for the one in work.
    """
    kept = peak = 0
    for entry, convention in wanted:
        for download in [] if repository_of(entry, convention) else entry.needed(convention):
            place = place_of(download, entry, data_dir)
            if not missing_items([download], data_dir) or (download.by_hand and not place.exists()):
                continue
            arriving = remaining(download.url, place, download.size)
            peak = max(peak, kept + arriving + (0 if download.is_plain else download.space))
            kept += arriving if download.is_plain else download.space + (arriving if keep_archives else 0)
    free = shutil.disk_usage(ensure_folder(data_dir)).free
    if peak > free:
        raise UserError(f"'{data_dir}' has {gigabytes(free)} free, but {gigabytes(peak)} are needed; name fewer data sets, or make room.")


def gigabytes(count: int) -> str:
    """A number of bytes, in the unit in which disks are sold."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _is_at_hand(download: Download, entry: Entry, data_dir: Path) -> bool:
    """Whether the file can be fetched, or was fetched by hand and waits to be unpacked."""
    return not download.by_hand or (download.is_archive and place_of(download, entry, data_dir).exists())


def _get_download(download: Download, entry: Entry, data_dir: Path, keep_archives: bool) -> None:
    path = place_of(download, entry, data_dir)
    if path.exists():
        _check_found(path, download)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(download.url, path, download.checksum)
    if download.is_plain:
        if wrong := problem(download.items[0], path):
            path.unlink()
            raise UserError(f"'{download.url}' is not the file that it should be: it {wrong}.")
        return
    try:
        unpack(path, download, missing_items([download], data_dir), data_dir)
    except TornArchive:
        if not download.by_hand:
            path.unlink()  # it would be found again
        raise
    except UnpackError as error:  # whole, but not as expected: tens of gigabytes are not thrown away for that
        raise UserError(f"{error} It stays where it is: unpack it yourself as --list {entry.name} says, or remove it.") from error
    if not keep_archives:
        path.unlink()


def _check_found(path: Path, download: Download) -> None:
    """An archive that was fetched by a browser or kept from an earlier run."""
    if download.checksum and (found := checksum_of(path, download.checksum.partition(":")[0])) != download.checksum:
        raise UserError(f"'{path}' is not the file that was published: its checksum is {found}, not {download.checksum}; remove it.")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, or was never made
        folder.rmdir()
        folder.parent.rmdir()
