"""The table of a run: line by line for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.rows import Row, Timing

COLUMNS = ("plain way", "clipscope", "ratio", "memory, plain", "memory, clipscope", "agreement")
WIDTHS = (28, 28, 8, 15, 19)


def print_table(rows: Iterable[Row]) -> list[Row]:
    """Print each row when it is there, the work on a line of its own; gives the rows."""
    print("".join(f"{column:>{width}}" for column, width in zip(COLUMNS, WIDTHS, strict=False)) + "   agreement", flush=True)
    kept = []
    for row in rows:
        kept.append(row)
        print(f"{row.work}; plain: {row.against}" if row.against else row.work)
        values = "".join(f"{cell:>{width}}" for cell, width in zip(cells(row), WIDTHS, strict=False))
        print(f"{values}   {verdict(row)}", flush=True)
    return kept


def markdown(rows: Iterable[Row]) -> str:
    """The table of a page."""
    head = ("work", "the plain way", *COLUMNS)
    lines = [head, ("---",) * len(head), *((row.work, row.against, *cells(row), verdict(row)) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Times, ratio and memory."""
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}" if row.ratio < 1000 else f"{row.ratio:,.0f}"
    return seconds(row.plain), seconds(row.ours), ratio, memory(row.plain), memory(row.ours)


def verdict(row: Row) -> str:
    """How far the results are apart, or what went wrong."""
    return f"FAILED: {row.failed}" if row.failed else row.agreement


def seconds(timing: Timing | None) -> str:
    """The median, with the least and the most."""
    if timing is None:
        return ""
    return f"{brief(timing.seconds)} s ({brief(timing.least)}–{brief(timing.most)})"


def brief(value: float) -> str:
    """Three digits at most."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory(timing: Timing | None) -> str:
    """MiB before, and added."""
    return "" if timing is None else f"{timing.start_mib:,} + {timing.added_mib:,}"
