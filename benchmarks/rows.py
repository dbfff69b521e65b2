"""Measuring a piece of work both ways, in turn, and the row of the table that it makes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.work import Disagreement, Work
from benchmarks.worker import Failed, Run, Worker

BRIEF, MORE = 2.0, 5  # work that is over sooner than BRIEF seconds is repeated up to MORE times as often
LONG, FEW = 60.0, 2  # work that takes longer than LONG seconds is repeated FEW times, whatever is asked for


@dataclass(frozen=True)
class Timing:
    """Median, least and most seconds of a way, median seconds of the processor, and MiB held before and added by the work."""

    seconds: float
    least: float
    most: float
    cpu: float
    runs: int
    start_mib: int
    added_mib: int

    @classmethod
    def of(cls, runs: list[Run], start_mib: int, peak_mib: int) -> Timing:
        """Of the runs that count; the peak is that of all."""
        seconds = [run.seconds for run in runs]
        cpu = statistics.median(run.cpu for run in runs)
        return cls(statistics.median(seconds), min(seconds), max(seconds), cpu, len(runs), start_mib, max(0, peak_mib - start_mib))


@dataclass(frozen=True)
class Row:
    """A measured piece of work; ``failed`` says why it is not what it should be. ``plain`` is absent where no plain way was run."""

    work: str
    against: str
    plain: Timing | None = None
    ours: Timing | None = None
    agreement: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than the plain way, by the medians."""
        return self.plain.seconds / self.ours.seconds if self.plain and self.ours else None


def measured(works: Iterable[Work]) -> Iterator[Row]:
    """Row after row; one that fails does not keep the others from being measured."""
    for work in works:
        try:
            yield row_of(work)
        except Failed as failed:
            yield Row(work.name, work.against, failed=str(failed))


def row_of(work: Work) -> Row:
    """Both ways, each in a process of its own, prepared at once and run in turn, so that a busy machine slows them alike."""
    with ExitStack() as stack:
        ways = [stack.enter_context(Worker(prepare)) for prepare in (work.plain, work.ours) if prepare is not None]
        starts = [way.ready() for way in ways]
        rounds = list(zip(*in_turn(ways, work), strict=True))
        peaks = [max(run.peak_mib for run in runs) for runs in rounds]
        counted = [list(runs) if work.first_counts else list(runs[1:]) for runs in rounds]
        timings: list[Timing | None] = [Timing.of(*of_way) for of_way in zip(counted, starts, peaks, strict=True)]
        results = [way.result() for way in ways]
    plain, ours = timings if work.plain else (None, *timings)
    try:
        return Row(work.name, work.against, plain, ours, work.agree(results[0] if work.plain else None, results[-1]))
    except Disagreement as error:
        return Row(work.name, work.against, plain, ours, failed=f"the results disagree: {error}")


def in_turn(ways: list[Worker], work: Work) -> Iterator[list[Run]]:
    """Rounds of one run of each way: as many as asked for, more while they are brief, fewer where they are long."""
    started, warm = time.perf_counter(), int(not work.first_counts)
    least, few = work.repeats + warm, min(work.repeats, FEW) + warm
    for number in range(MORE * least):
        taken = time.perf_counter() - started
        if (number >= least and taken > BRIEF) or (number >= few and taken > LONG):
            return
        yield [way.run() for way in ways]
