"""Files that are either the old one or the new one, never half of either.

Everything that clipscope writes goes to a temporary name in the same folder, is flushed and synced, and is then renamed
over the target. CSV tables grow under a lock, so that processes which share one results file do not lose rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError


def ensure_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents; a :class:`UserError` when that is not possible or it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the output folder '{folder}': {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"The output folder '{folder}' is not writable.")
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds, sync it and rename it to ``path``.

    When the block fails or the process is killed, ``path`` is what it was. A full disk or a read-only folder is a
    :class:`UserError`.
    """
    ensure_folder(path.parent)
    temporary = _temporary_beside(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp, and writers that put a file of their own there, let only the owner read
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"Cannot write '{path}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"Cannot write '{path}': {error.strerror or error}.") from error
    return Path(name)


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
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
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


def check_appendable(path: Path) -> None:
    """A :class:`UserError` now rather than after the work, when rows cannot be added to the table at ``path``."""
    ensure_folder(path.parent)
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a CSV file.")
    read_csv(path)


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add ``rows`` to the CSV table at ``path``; every earlier row stays, new columns are added at the right.

    The table is locked while it is read, extended and replaced, so several processes can write to one file.
    """
    ensure_folder(path.parent)
    with locked(path):
        table: list[Mapping[str, Any]] = [*read_csv(path), *rows]
        columns = list(dict.fromkeys(column for row in table for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_text(path, text.getvalue())


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
