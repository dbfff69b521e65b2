"""A single benchmark's command: its rows, printed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import NoReturn

from benchmarks.rows import Row, measured
from benchmarks.table import print_table
from benchmarks.work import Work
from common.cli import run

Parse = Callable[[list[str] | None], argparse.Namespace]
Works = Callable[[argparse.Namespace], Iterator[Work]]


def rows_of(args: argparse.Namespace, works: Works) -> Iterator[Row]:
    """The rows of a benchmark, in ``args.threads`` threads."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the processes that are to start; this one computes nothing
    return measured(works(args))


def main(parse: Parse, works: Works) -> NoReturn:
    """The command of a module: exits with 1 if a row failed."""
    run(lambda: int(any(row.failed for row in print_table(rows_of(parse(None), works)))))
