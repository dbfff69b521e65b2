"""One piece of work at several sizes, and the power of the size that its time and memory grow with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from benchmarks.work import Scaled, Way
from benchmarks.worker import Failed, Worker
from common.errors import UserError

LEAST_SECONDS = 0.1
LEAST_MIB = 16  # memory that grows by less over a whole series is not fitted: allocators round


@dataclass(frozen=True)
class Series:
    """``work`` at every size of ``axis``; ``fixed`` says what else there is.

    ``prepare``, whose argument ``varies`` is the size, makes it ready in a process of its own.
    """

    work: str
    axis: str
    sizes: tuple[int, ...]
    fixed: str
    prepare: Callable[..., Way]
    varies: str
    repeats: int = 2
    alone: bool = False  # it uses more than one core itself, or files


@dataclass(frozen=True)
class Point:
    """The least seconds of some runs, of the processor and on the wall, and MiB added to what the process held before."""

    size: int
    cpu: float
    seconds: float
    added_mib: int


@dataclass(frozen=True)
class Grown:
    """A series and its points."""

    series: Series
    points: tuple[Point, ...]

    @property
    def exponent(self) -> float:
        """a of ``seconds ~ size^a``, of the processor's."""
        return exponent([point.size for point in self.points], [point.cpu for point in self.points])

    @property
    def memory_exponent(self) -> float | None:
        """The same of the memory; None where it hardly grows."""
        added = [max(1, point.added_mib) for point in self.points]
        return exponent([point.size for point in self.points], added) if max(added) - min(added) >= LEAST_MIB else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope a of log(value) = a log(size) + b, by least squares.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def finely(prepare: Callable[[], Way]) -> Way:
    """The way over and over for at least :data:`LEAST_SECONDS`, of which the mean is taken: the system counts in hundredths."""
    way = prepare()

    def often() -> Scaled:
        began, used, runs = time.perf_counter(), _cpu(), 0
        while not runs or time.perf_counter() - began < LEAST_SECONDS:
            value, runs = way(), runs + 1
            if isinstance(value, Scaled):  # it has its own clock
                return value
        return Scaled(None, (time.perf_counter() - began) / runs, (_cpu() - used) / runs)

    return often


def _cpu() -> float:
    return time.process_time() + sum(os.times()[2:4])  # of this process to the nanosecond, and of its children


def measure(series: Series, size: int) -> Point:
    """One point, in a new process. A first run pays for caches and threads, and counts only where it is the only one."""
    try:
        with Worker(partial(finely, partial(series.prepare, **{series.varies: size}))) as worker:
            held = worker.ready()
            runs = [worker.run() for _ in range(series.repeats)]
    except Failed as failed:
        raise UserError(f"{series.work} with {series.axis} = {size:,} could not be measured: {failed}.") from failed
    counted = runs[1:] or runs
    added = max(run.peak_mib for run in runs) - held
    return Point(size, min(run.cpu for run in counted), min(run.seconds for run in counted), max(0, added))


def grown(every: Iterable[Series], jobs: int) -> Iterator[Grown]:
    """All series in turn, ``jobs`` points at a time; those that are to be alone one by one."""
    for alone, some in groupby(every, key=lambda series: series.alone):
        with ThreadPoolExecutor(1 if alone else jobs) as pool:
            started = [(series, [pool.submit(measure, series, size) for size in reversed(series.sizes)]) for series in some]
            for series, points in started:
                yield Grown(series, tuple(point.result() for point in reversed(points)))
