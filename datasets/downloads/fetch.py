"""Fetch one file over HTTP, HTTPS or FTP, so that a broken download goes on where it broke.

What has arrived is in ``NAME.part``, and beside it ``NAME.part.json`` says of which version of the file it is a part: the
server's ``ETag`` or ``Last-Modified`` and the length of the whole. The next request asks with ``Range`` for what is missing and
with ``If-Range`` only if that version is still there, so a file that has changed, or a server that knows no ranges, starts
anew (RFC 9110, sections 13.1.5 and 14). The file gets its name when it is whole and its checksum is right.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.provenance import VERSION

PAUSES = (1.0, 3.0, 9.0)  # seconds before each new try; an attempt that brings bytes starts again with the first
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
TIMEOUT = 60.0  # seconds without a byte
BLOCK = 1 << 18


class FetchError(UserError):
    """A file could not be fetched; the message says which and why."""


class _Broken(Exception):
    """An attempt failed in a way that another one may mend."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a file on a server from another."""

    url: str
    validator: str | None = None  # a strong ETag or a date, as If-Range takes them
    total: int | None = None


def fetch(url: str, target: Path, checksum: str | None = None, *, progress: bool = True) -> None:
    """Fetch ``url`` to ``target``; ``checksum`` is ``md5:...`` or ``sha256:...``.

    Raises :class:`FetchError` when the server refuses, the connection keeps breaking, the disk is full or the checksum is
    wrong; all but the last leave what has arrived, for the next time.
    """
    part = target.with_name(f"{target.name}.part")
    tries = 0
    while True:
        before = _length(part)
        try:
            _attempt(url, part, progress)
            break
        except (_Broken, http.client.HTTPException, ConnectionError, TimeoutError, urllib.error.URLError) as error:
            tries = 0 if _length(part) > before else tries
            if tries == len(PAUSES):
                raise FetchError(f"'{url}' cannot be fetched: {_reason(error)}; run again to go on.") from error
            time.sleep(PAUSES[tries])
            tries += 1
    _check(part, url, checksum)
    part.replace(target)
    _note(part).unlink(missing_ok=True)


def checksum_of(path: Path, kind: str) -> str:
    """``md5:...`` or ``sha256:...`` of a file."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def remaining(url: str, target: Path, size: int) -> int:
    """Bytes of ``target`` that are still to be fetched, of about ``size``."""
    if target.exists():
        return 0
    part = target.with_name(f"{target.name}.part")
    return max(size - (_length(part) if _known(part, url) else 0), 0)


def _attempt(url: str, part: Path, progress: bool) -> None:
    """One request, for what is missing; returns when ``part`` is whole."""
    known = _known(part, url)
    start = _length(part) if known else 0
    if known and known.total is not None and start == known.total:
        return
    try:
        with urllib.request.urlopen(_request(url, start, known), timeout=TIMEOUT) as response:
            _receive(response, url, part, start, known, progress)
    except urllib.error.HTTPError as error:
        _refused(error, url, part, start)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kept = f"'{part}' keeps the {_length(part):,} bytes that are there"
            raise FetchError(f"The disk is full: {kept}; make room and run again.") from error
        raise


def _request(url: str, start: int, known: Version | None) -> urllib.request.Request:
    headers = {"User-Agent": f"clipscope/{VERSION}", "Accept-Encoding": "identity"}
    if start and known:
        headers["Range"] = f"bytes={start}-"
        if known.validator:
            headers["If-Range"] = known.validator
    return urllib.request.Request(url, headers=headers)


def _receive(response: Any, url: str, part: Path, start: int, known: Version | None, progress: bool) -> None:
    """Write the body behind the first ``start`` bytes, or in their place where the server sends all of it."""
    headers = response.headers
    length = int(headers["Content-Length"]) if headers.get("Content-Length", "").isdigit() else None
    if response.status == 206:
        first, total = _range(headers.get("Content-Range", ""))
        if first != start or known is None or (known.total is not None and total != known.total):
            _forget(part)
            raise _Broken("the server sent another part than it was asked for")
        version = replace(known, total=total)
    else:
        start = 0
        version = Version(url, _validator(headers), length)
        part.unlink(missing_ok=True)  # before the note, which must never belong to other bytes
        _note(part).write_text(json.dumps(asdict(version)), encoding="utf-8")
    _copy(response, part, start, version.total, progress)
    if version.total is not None and _length(part) != version.total:
        raise _Broken(f"the connection broke after {_length(part):,} of {version.total:,} bytes")


def _copy(response: Any, part: Path, start: int, total: int | None, progress: bool) -> None:
    from tqdm import tqdm

    show = None if progress else True  # None: only where stderr is a terminal
    with (
        part.open("r+b" if start else "wb") as stream,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.name.removesuffix(".part"), disable=show) as bar,
    ):
        stream.seek(start)
        stream.truncate()
        while block := response.read(BLOCK):
            stream.write(block)
            bar.update(len(block))
        stream.flush()
        os.fsync(stream.fileno())


def _refused(error: urllib.error.HTTPError, url: str, part: Path, start: int) -> None:
    error.close()
    if error.code == 416 and start:  # what is here is no part of what is there
        _forget(part)
        raise _Broken("the file has changed") from error
    if error.code in TRANSIENT:
        raise _Broken(f"the server answers {error.code} {error.reason}") from error
    raise FetchError(f"'{url}' cannot be fetched: the server answers {error.code} {error.reason}.") from error


def _check(part: Path, url: str, checksum: str | None) -> None:
    if checksum is None:
        return
    found = checksum_of(part, checksum.partition(":")[0])
    if found != checksum:
        _forget(part)
        raise FetchError(f"'{url}' is not the file that was published: its checksum is {found}, not {checksum}; it was removed.")


def _validator(headers: Any) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _range(text: str) -> tuple[int, int | None]:
    """First byte and length of the whole, of ``bytes 5-9/10``."""
    span, _, total = text.removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else -1, int(total) if total.isdigit() else None


def _known(part: Path, url: str) -> Version | None:
    """Of which version ``part`` is a part; None when that is not known, or cannot be asked for again."""
    try:
        version = Version(**json.loads(_note(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return version if version.url == url and (version.validator or version.total is not None) and part.exists() else None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).rstrip(".") or type(error).__name__
