"""A way in a process of its own, so that its time and its memory are its own; it waits for its turns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks.memory import peak_mib, restart_peak
from benchmarks.work import Prepare, Scaled, Way
from common.errors import UserError


@dataclass(frozen=True)
class Run:
    """Seconds on the wall and of the processor (all threads and finished children), and the peak of memory until now."""

    seconds: float
    cpu: float
    peak_mib: int


class Failed(Exception):
    """What went wrong in the process, in a sentence."""


class Worker:
    """Prepares a way in a new process; :meth:`ready`, then :meth:`run` any number of times, then :meth:`result`."""

    def __init__(self, prepare: Prepare) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=serve, args=(end, prepare))
        self._process.start()
        end.close()  # ours alone: so that the end of the process is noticed

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join(timeout=10 if kind is None else 0)
        self._process.kill()
        self._process.join()

    def ready(self) -> int:
        """Wait until it is prepared; MiB that the process holds then."""
        return int(self._answer())

    def run(self) -> Run:
        """One run."""
        self._pipe.send("run")
        run: Run = self._answer()
        return run

    def result(self) -> Any:
        """What the last run returned."""
        self._pipe.send("result")
        return self._answer()

    def _answer(self) -> Any:
        try:
            failed, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=10)
            raise Failed(f"its process died with exit code {self._process.exitcode} (-9 is often a lack of memory)") from None
        if failed:
            raise Failed(value)
        return value


def serve(pipe: Any, prepare: Prepare) -> None:
    """The process: answers with (whether it failed, what is asked for), until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, which ends this process
    multiprocessing.set_start_method(None, force=True)  # loader processes start as in any script, not as this process did
    try:
        way, value = prepare(), None
        restart_peak()
        pipe.send((False, peak_mib()))
        while (asked := _asked(pipe)) is not None:
            if asked == "run":
                run, value = timed(way)
                pipe.send((False, run))
            else:
                pipe.send((False, value))
    except UserError as error:
        pipe.send((True, str(error)))
    except Exception as error:
        traceback.print_exc()
        pipe.send((True, f"{type(error).__name__}: {error}"))


def _asked(pipe: Any) -> str | None:
    try:
        return str(pipe.recv())
    except EOFError:
        return None


def timed(way: Way) -> tuple[Run, Any]:
    """One run, and what it returned."""
    started, used = time.perf_counter(), _cpu()
    value = way()
    seconds, cpu = time.perf_counter() - started, _cpu() - used
    if isinstance(value, Scaled):
        value, seconds, cpu = value.value, value.seconds, value.cpu
    return Run(seconds, cpu, peak_mib()), value


def _cpu() -> float:
    return sum(os.times()[:4])
