"""What a benchmark compares: a piece of work done in two ways, and how what they give is compared."""

from __future__ import annotations

import multiprocessing
import os
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.arguments import positive_int

Way = Callable[[], Any]  # what is timed
Prepare = Callable[[], Way]  # makes it ready, outside the time; picklable, since it runs in a process of its own


@dataclass(frozen=True)
class Work:
    """One row of a table: ``name`` with its sizes, and what the plain way does (``against``).

    ``agree`` is given what the last run of either way returned; it says in a few words how far they are apart, and raises
    :class:`Disagreement` when that is too far. Without a ``plain`` way it is given None for it. The first run of both is not
    counted, as it pays for caches and threads, unless ``first_counts``: where a run takes long, that is lost in it.
    """

    name: str
    against: str
    plain: Prepare | None
    ours: Prepare
    agree: Callable[[Any, Any], str]
    repeats: int = 3
    first_counts: bool = False


@dataclass(frozen=True)
class Scaled:
    """What a way returns that does only a part of the work: its result, and the seconds that the whole would take."""

    value: Any
    seconds: float
    cpu: float


class Disagreement(Exception):
    """Two ways of the same work give results that are further apart than rounding explains."""


def within(limit: float, what: str, plain: Any, ours: Any) -> str:
    """The greatest difference of two arrays, of which ``what`` says what they hold; at most ``limit``."""
    import numpy as np

    apart = float(np.abs(np.subtract(plain, ours, dtype=np.float64)).max())
    return said(limit, what, apart)


def relatively_within(limit: float, what: str, plain: float, ours: float) -> str:
    """The difference of two numbers as a part of the plain one; at most ``limit``."""
    return said(limit, what, abs(ours - plain) / (abs(plain) or 1), "relatively ")


def said(limit: float, what: str, apart: float, how: str = "") -> str:
    """A difference in words, or the :class:`Disagreement` that it is."""
    words = f"{what} {how}{'equal' if apart == 0 else f'within {apart:.0e}'}"
    if not apart <= limit:  # NaN is no agreement
        raise Disagreement(f"{what} differ by {apart:.1e}, more than {limit:.0e}")
    return words


def add_measuring_arguments(parser: ArgumentParser, *, repeats: int = 3, threads: int | None = None) -> None:
    """How often, and in how many threads."""
    group = parser.add_argument_group("measuring")
    group.add_argument("--repeats", type=positive_int, default=repeats, help="runs of each way, in turn; the median is shown")
    group.add_argument("--threads", type=positive_int, default=threads or cores(), help="of NumPy and PyTorch")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else multiprocessing.cpu_count()
