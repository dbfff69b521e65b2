"""Where the time of a run goes, stage by stage: what ``--profile`` prints.

::

    with stage("backward"):
        loss.backward()

Stages nest, and what is inside of one is part of it: those of the outermost level and "other", which is the rest, add up to the
whole run. What another thread or process does meanwhile is told beside them. Without ``--profile`` a stage is an empty context.

A CUDA device works on while the program goes on; so that its time is counted where it belongs, each stage waits for it
at both ends. A profiled run is a little slower for that.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Place = tuple[str, ...]  # a stage's name behind the names of those around it

START = "start"  # the interpreter, imports, the device
_NOTHING = nullcontext()


@dataclass
class Row:
    """The seconds spent in a stage, and how often it was entered."""

    seconds: float = 0.0
    calls: int = 0

    def add(self, seconds: float, calls: int = 1) -> None:
        """Count one more time."""
        self.seconds += seconds
        self.calls += calls


class Profile:
    """What is known of a run so far. ``rows`` are in the order in which their stages were first entered.

    ``beside`` holds what other threads and processes did meanwhile; ``counts`` how many of what the run worked on; ``most`` the
    greatest seconds of any of several processes.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.began = time.perf_counter() - _age()
        self.rows: dict[Place, Row] = {}
        self.beside: dict[str, Row] = {}
        self.counts: dict[str, int] = {}
        self.most: dict[Place, float] = {}
        self.place: Place = ()
        self.starting = True  # until the first stage is entered
        self.waited = False  # for a device

    def end_start(self) -> None:
        """All until now was the start."""
        if self.starting:
            self.starting = False
            self.rows[START,] = Row(time.perf_counter() - self.began, 1)

    def seconds(self) -> dict[Place, float]:
        """Of every stage so far."""
        return {place: row.seconds for place, row in self.rows.items()}


class _Stage:
    """One time in a stage of the main thread."""

    def __init__(self, profile: Profile, name: str) -> None:
        self.profile, self.name = profile, name

    def __enter__(self) -> None:
        self.profile.waited |= synchronise()
        self.profile.end_start()
        self.place = self.profile.place = (*self.profile.place, self.name)
        self.profile.rows.setdefault(self.place, Row())  # before those inside
        self.began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:  # a device that failed would fail again
            synchronise()
        self.profile.rows[self.place].add(time.perf_counter() - self.began)
        self.profile.place = self.place[:-1]


class _Beside:
    """One time in a stage of another thread."""

    def __init__(self, profile: Profile, name: str) -> None:
        self.row = profile.beside.setdefault(name, Row())

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.row.add(time.perf_counter() - self.began)


_profile: Profile | None = None


def begin(wanted: bool = True) -> None:
    """From here on stages are counted, if that is ``wanted``; what went before, since the process was started, is the start."""
    global _profile  # noqa: PLW0603 (one process is one run)
    _profile = Profile() if wanted else None


def end() -> Profile | None:
    """What was counted, if anything was; from here on nothing is."""
    global _profile
    ended, _profile = _profile, None
    if ended is not None:
        ended.end_start()
    return ended


def stage(name: str) -> AbstractContextManager[None]:
    """The context of a stage. Inside a stage of the same name it is nothing new."""
    if _profile is None:
        return _NOTHING
    if threading.get_ident() != _profile.thread:
        return _Beside(_profile, name)
    return _NOTHING if name in _profile.place or (name == START and _profile.starting) else _Stage(_profile, name)


def staged(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: all of a function is a stage."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> T:
            with stage(name):
                return function(*args, **kwargs)

        return within

    return decorate


def timed(name: str, items: Iterable[T]) -> Iterable[T]:
    """``items``, where waiting for each is a stage and what is done with it is none."""
    return items if _profile is None else _timed(name, items)


def _timed(name: str, items: Iterable[T]) -> Iterator[T]:
    with stage(name):
        iterator = iter(items)
    while True:
        with stage(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def count(what: str, n: int = 1) -> None:
    """``n`` more of ``what`` the run works on, e.g. "images read"; the table tells how many there were in a second."""
    if _profile is not None:
        _profile.counts[what] = _profile.counts.get(what, 0) + n


def beside(name: str, seconds: float) -> None:
    """Another process has spent ``seconds`` on a stage."""
    if _profile is not None:
        _profile.beside.setdefault(name, Row()).add(seconds)


def compare(gather: Callable[[list[Any]], Sequence[Mapping[Place, float]]]) -> None:
    """Ask all processes of a run for their seconds, through ``gather``; all of them call this."""
    if _profile is not None:
        of_all = gather([_profile.seconds()])
        for place, seconds in [item for of_one in of_all if len(of_all) > 1 for item in of_one.items()]:
            _profile.most[place] = max(seconds, _profile.most.get(place, 0.0))


def synchronise() -> bool:
    """Wait for the CUDA device; whether the run uses one."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    torch.cuda.synchronize()
    return True


def _age() -> float:
    """Seconds since this process was started; 0 on systems that do not tell as Linux does."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
