"""Runs of merge.py that get SIGKILL: in a fork of this process, at a chosen touch of a file, since a start of Python takes seconds."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from tests.helpers import files_below, run_here

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
MINUTE = 60.0


def run_until(touch: int | None, folder: Path, *arguments: object) -> int | None:
    """Run merge.py and end it by SIGKILL just before it touches a file in ``folder`` for the time with this number, from 1.

    Returns how often it has touched one when it came to its end, and None when it was killed.
    """
    counts, child = folder.with_suffix(".touches"), os.fork()
    if child == 0:
        _run(touch, folder, counts, arguments)
    deadline = time.monotonic() + MINUTE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    assert time.monotonic() < deadline, "the run hangs"
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0
    return int(counts.read_text())


def _run(touch: int | None, folder: Path, counts: Path, arguments: tuple[object, ...]) -> None:
    """What the child does."""
    status, seen = 1, 0

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal seen
        if event in TOUCHES and any(isinstance(path, str | Path) and str(path).startswith(str(folder)) for path in given):
            seen += 1
            if seen == touch:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        folder.parent.mkdir(exist_ok=True)
        sys.addaudithook(hook)
        ended = run_here("merge", *arguments)
        status = ended.status
        if status:
            os.write(2, ended.stderr.encode())
        counts.write_text(str(seen))
    finally:
        os._exit(status)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below ``folder``, without the time that headers say they were made at."""
    return {name: re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", b"", content) for name, content in files_below(folder).items()}
