"""Files made once from larger ones, so that images are found quickly: below ``DATA_DIR/image_cache``.

A made file is called after what it was made from (its path, size and time of change), so a source that changes is read anew,
and what was made from its earlier state goes. Processes that want the same file at the same time wait for the first one;
a killed one leaves nothing that is taken for whole. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from common.files import ensure_folder, locked, replacing, slug

FOLDER = "image_cache"


def made_from(source: Path, data_dir: Path, suffix: str, write: Callable[[Path], None]) -> Path:
    """The file that ``write(temporary path)`` makes from ``source``; it is made only when it is not there yet.

    ``suffix`` tells apart what is made from one source, e.g. ``-image.arrow``.
    """
    status = source.stat()
    place = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:12]
    state = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = data_dir.expanduser() / FOLDER
    made = folder / f"{slug(source.stem)}-{place}-{state}{suffix}"
    if not made.exists():
        ensure_folder(folder)
        with locked(folder / f"{place}{suffix}"):
            if not made.exists():
                _remove_leftovers(folder, place, suffix)
                with replacing(made) as temporary:
                    write(temporary)
    return made


def _remove_leftovers(folder: Path, place: str, suffix: str) -> None:
    """What was made from an earlier state of the source, and what killed processes left; under the lock nobody writes there."""
    state = "?" * 12
    for pattern in (f"*-{place}-{state}{suffix}", f".*-{place}-{state}{suffix}.*.tmp"):
        for old in folder.glob(pattern):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
