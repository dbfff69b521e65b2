"""Take a data set's files out of an archive, all of them or none.

Members are unpacked into a hidden folder beside the others of the data folder, counted there, and only then renamed to where
they belong; what a killed run leaves is that hidden folder, which the next run removes. Archives are strangers: a member that
would be written elsewhere, a link out of the folder or a device is refused, with the whole archive.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from common.errors import UserError
from datasets.downloads.check import problem
from datasets.downloads.entries import Download, Item

# What the readers of archives raise on damaged ones; of what the system says, all but that the disk is full or not ours.
TORN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError, struct.error, OSError)
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


class UnpackError(UserError):
    """An archive is unsafe or has not the files that it should have."""


class TornArchive(UnpackError):
    """An archive cannot be read to its end, or is none; another copy of it is needed."""


def unpack(archive: Path, download: Download, items: Iterable[Item], data_dir: Path) -> None:
    """Take ``items`` of ``download`` out of ``archive``; they must not be in ``data_dir`` yet.

    Raises :class:`UnpackError` when the archive is not as it should be. Whatever is raised, no item is there in part.
    """
    wanted = list(items)
    with _scratch(data_dir / f".unpacking-{archive.parent.name}-{archive.name}") as folder:
        try:
            source = _nested(archive, download.nested, folder) if download.nested else archive
            _extract(source, wanted, folder / "items")
        except TORN as error:
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            raise TornArchive(f"'{archive}' cannot be unpacked: {str(error).rstrip('.') or 'it ends too early'}.") from error
        found = [(item, folder / "items" / item.in_archive) for item in wanted]
        for item, path in found:
            if wrong := problem(item, path):
                raise UnpackError(f"'{archive}' is not the archive that it should be: '{item.in_archive}' in it {wrong}.")
        for item, path in found:
            target = data_dir / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """The folder, empty at first and gone afterwards. Its name is the same in every run: callers hold a lock."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _nested(archive: Path, inner: str, folder: Path) -> Path:
    _extract(archive, [Item(inner, inner)], folder / "nested")
    return folder / "nested" / inner


def _extract(archive: Path, items: list[Item], folder: Path) -> None:
    """Write the members of ``archive`` that belong to ``items`` below ``folder``."""
    folder.mkdir()
    if archive.name.endswith(".zip"):
        _extract_zip(archive, items, folder)
    elif archive.name.endswith((".tar", ".tar.gz", ".tgz")):
        _extract_tar(archive, items, folder)
    else:
        with gzip.open(archive, "rb") as source, (folder / items[0].in_archive).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _extract_tar(archive: Path, items: list[Item], folder: Path) -> None:
    with tarfile.open(archive, "r:*") as source:
        for member in source:
            if _belongs(member.name, items, archive):
                source.extract(member, folder, filter="data")  # refuses links out of the folder, devices, odd modes


def _extract_zip(archive: Path, items: list[Item], folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            if _belongs(member.filename, items, archive):
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise UnpackError(f"'{archive}' is not safe to unpack: '{member.filename}' is a link.")
                source.extract(member, folder)


def _belongs(name: str, items: list[Item], archive: Path) -> bool:
    """Whether a member is one of ``items`` or below one; an :class:`UnpackError` for a name that leads out of the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnpackError(f"'{archive}' is not safe to unpack: it would write '{name}'.")
    return any(path == place or place in path.parents for place in (PurePosixPath(item.in_archive) for item in items))
