"""Files that are either the old one or the new one, never half of either.

Everything that clipscope writes goes to a temporary name on the same disk, is flushed and synced, and is then renamed
over the target. CSV tables grow under a lock, so that processes which share one results file do not lose rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.errors import CannotWrite, UserError
from common.stages import stage, staged

LOCK = "lock"  # in the folder of a file in the making


def ensure_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents; a :class:`UserError` when that is not possible or it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"Cannot create the output folder '{folder}': {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"The output folder '{folder}' is not writable.")
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, of an empty file; when the block succeeds, sync what is there and rename it to ``path``.

    When the block fails or the process is killed, ``path`` is what it was. A full disk or a read-only folder is a
    :class:`UserError`.
    """
    with in_the_making(path) as folder:
        try:
            temporary = folder / "new.tmp"
            temporary.touch()
            yield temporary
            with stage("write"):
                temporary.chmod(0o666 & ~_umask())  # writers that put a file of their own there let only the owner read
                _sync(temporary)
                temporary.replace(path)
                _sync(path.parent)
        except OSError as error:
            raise _cannot_write(path, error) from error


@contextmanager
def in_the_making(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` in which it is made, ``.NAME.abcdefgh.tmp``; in the end it goes, with what is left in it.

    The folder is locked, so that what a killed process has left can be told from what another one is making: the next
    :func:`in_the_making` of ``path`` removes it. A folder and no file, since libraries write to temporary files of their own
    beside the path that they are given.
    """
    ensure_folder(path.parent)
    remove_leftovers(path)
    try:
        folder, lock = _locked_folder(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of ``path`` in the making."""
    with suppress(OSError):  # the folder is not there, or not ours
        with os.scandir(path.parent) as found:  # of thousands of files nearly all have other names
            alike = [path.parent / entry.name for entry in found if entry.name.startswith(f".{path.name}.")]
        for left in filter(lambda one: is_temporary(one, path.name), alike):
            handle = os.open(left / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if _lock(handle, wait=False) and _is_file(handle, left / LOCK):
                    shutil.rmtree(left, ignore_errors=True)  # before the lock is given back
            finally:
                os.close(handle)


def is_temporary(path: Path, of: str | None = None) -> bool:
    """Whether :func:`in_the_making` gives such names, for a file of any name or of one."""
    return re.fullmatch(rf"\.{'.+' if of is None else re.escape(of)}\.[a-z0-9_]{{8}}\.tmp", path.name) is not None


def _locked_folder(path: Path) -> tuple[Path, int]:
    """The folder, and the handle that keeps it locked; until then it may be taken for what a killed process has left."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        with suppress(FileNotFoundError):
            handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            _lock(handle, wait=True)
            if _is_file(handle, folder / LOCK):
                return folder, handle
            os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Whether the open file is still the one called ``path``; who waited for a lock may have got that of a file that is gone."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed; whether that was possible. There are file systems without locks."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that can be looked at; of a text that can be no path, such as one too long, it is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _cannot_write(path: Path, error: OSError) -> CannotWrite:
    return CannotWrite(f"Cannot write '{path}': {error.strerror or error}.")


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@staged("write")
def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a :class:`UserError` names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"No such file: '{path}'.") from error
    except (ValueError, RecursionError) as error:  # not JSON or UTF-8; numbers or nesting without end
        raise UserError(f"'{path}' is not readable JSON: {error}.") from error
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table with a header line; an absent file has none."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' is not a readable CSV table: {error}.") from error
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"'{path}' has a row whose number of cells is not that of its header line.")
    return rows


def _header(path: Path) -> list[str]:
    """The columns of a readable CSV table, of one without rows too; an absent or empty file has none."""
    return next(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))), []) if path.exists() else []


def check_appendable(path: Path) -> None:
    """A :class:`UserError` now rather than after the work, when rows cannot be added to the table at ``path``."""
    ensure_folder(path.parent)
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a CSV file.")
    read_csv(path)


@staged("write")
def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add ``rows`` to the CSV table at ``path``; every earlier row stays, new columns are added at the right.

    The table is locked while it is read, extended and replaced, so several processes can write to one file.
    """
    append_chosen(path, lambda table: rows)


def append_chosen(path: Path, choose: Callable[[list[dict[str, str]]], Sequence[Mapping[str, Any]]]) -> int:
    """As :func:`append_rows`, those rows that ``choose`` gives for the table, which stays locked meanwhile; returns how many they are."""
    ensure_folder(path.parent)
    with locked(path):
        table = read_csv(path)
        rows = choose(table)
        columns = list(dict.fromkeys([*_header(path), *(column for row in rows for column in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*table, *rows])
        if rows:
            write_text(path, text.getvalue())
    return len(rows)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that belongs to ``path`` (a hidden file beside it, since the file itself is replaced)."""
    import fcntl

    lock = path.parent / f".{path.name}.lock"
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise UserError(f"Cannot write '{path}': {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@staged("hash")
def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)


def _sha256(stream: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def slug(name: str) -> str:
    """``name`` as one part of a file name: letters, digits, ``.``, ``_`` and ``-`` stay, the rest becomes ``-``."""
    kept = "".join(character if character.isalnum() or character in "._-" else "-" for character in name)
    return kept.strip("-.") or "unnamed"


def exact(number: float) -> str:
    """``number`` as part of a file name, in the fewest digits that tell it from any other: 1e-06, 0.01, 3."""
    return repr(float(number)).removesuffix(".0")
