"""Runs of scripts that are ended, or meet a disk that takes no more: in a fork of this process, since a start of Python takes seconds."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tests.faults.mounts import mount
from tests.helpers import Ended, run_here

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
MINUTE = 60.0


@dataclass(frozen=True)
class Fault:
    """What happens to a run.

    It is ``sent`` a signal just before it touches a file below the watched folder for the time with the number ``touch``, from 1, or
    ``seconds`` after its start; no file may grow beyond ``largest`` bytes; the watched folder is a disk of ``disk`` bytes, of which
    nothing is left afterwards but a copy beside it, ``FOLDER.left``; or it is ``read_only``.
    """

    touch: int | None = None
    seconds: float | None = None
    sent: signal.Signals = signal.SIGKILL
    largest: int | None = None
    disk: int | None = None
    read_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended, None when a signal ended it; how often it touched a file, and the seconds that it took."""

    ended: Ended | None
    touches: int
    seconds: float


def run_with(fault: Fault, folder: Path, name: str, *arguments: object) -> Outcome:
    """Run the script ``name``, which writes below ``folder``, with that fault."""
    with tempfile.TemporaryFile("w+") as report:
        started, child = time.monotonic(), os.fork()
        if child == 0:
            _run(fault, folder, report, name, arguments)
        status = _wait(child, fault)
        seconds = time.monotonic() - started
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == fault.sent
            return Outcome(None, 0, seconds)
        assert os.WEXITSTATUS(status) == 0, "the script raised"
        report.seek(0)
        told = json.load(report)
    return Outcome(Ended(**told["ended"]), told["touches"], seconds)


def run_until(touch: int | None, folder: Path, name: str, *arguments: object) -> int | None:
    """Run a script and end it by SIGKILL at that touch of a file, or let it come to its end, which must be a good one.

    Returns how often it has touched one, and None when it was killed.
    """
    outcome = run_with(Fault(touch), folder, name, *arguments)
    if outcome.ended is None:
        return None
    outcome.ended.succeeded()
    return outcome.touches


def _wait(child: int, fault: Fault) -> int:
    """Send the signal when it is time, and return the status that the child ended with."""
    started = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        passed = time.monotonic() - started
        if fault.seconds is not None and passed >= fault.seconds:
            os.kill(child, fault.sent)
            fault = Fault(sent=fault.sent)
        if passed > MINUTE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the run hangs")
        time.sleep(0.002)


def _run(fault: Fault, folder: Path, report: IO[str], name: str, arguments: tuple[object, ...]) -> None:
    """What the child does."""
    status, seen, pid = 1, 0, os.getpid()

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal seen
        below = any(isinstance(path, str | Path) and str(path).startswith(str(folder)) for path in given)
        if event in TOUCHES and below and os.getpid() == pid:
            seen += 1
            if seen == fault.touch:
                os.kill(pid, fault.sent)

    try:
        sys.addaudithook(hook)
        most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most if fault.largest is None else fault.largest, hard))
        if fault.disk is not None or fault.read_only:
            mount(folder, size=fault.disk)
        ended = run_here(name, *arguments)
        if fault.disk is not None:
            shutil.copytree(folder, folder.with_suffix(".left"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        json.dump({"ended": asdict(ended), "touches": seen}, report)
        report.flush()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        os._exit(status)
