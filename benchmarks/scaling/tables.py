"""The measured series as lines on the screen and as the tables of a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.scaling.growth import Grown
from common.errors import UserError
from common.files import write_text

BEGIN, END = "<!-- measured: python -m benchmarks.scaling -->", "<!-- end of what was measured -->"
COLUMNS = ("work", "against", "sizes", "fixed", "CPU seconds", "time", "MiB added", "memory")


def header() -> str:
    """Of the lines."""
    return f"{'work':<24}{'against':<11}{'time':>7}{'memory':>8}   size: CPU s, MiB"


def line(of: Grown) -> str:
    """One series."""
    points = "   ".join(f"{point.size:,}: {seconds(point.cpu)}, {point.added_mib}" for point in of.points)
    return f"{of.series.work:<24}{of.series.axis:<11}{of.exponent:7.2f}{power(of):>8}   {points}"


def power(of: Grown) -> str:
    """The exponent of the memory; a dash where it hardly grows."""
    return "-" if of.memory_exponent is None else f"{of.memory_exponent:.2f}"


def seconds(value: float) -> str:
    """With two digits that count."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def table(every: Sequence[Grown]) -> str:
    """All series as Markdown; exponents as of size^a."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(of) for of in every if of.series.axis != "processes")]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(of: Grown) -> tuple[str, ...]:
    sizes = ", ".join(f"{point.size:,}" for point in of.points)
    cpu = ", ".join(seconds(point.cpu) for point in of.points)
    memory = ", ".join(str(point.added_mib) for point in of.points)
    return of.series.work, of.series.axis, sizes, of.series.fixed, cpu, f"{of.exponent:.2f}", memory, power(of)


def processes_table(every: Sequence[Grown]) -> str:
    """Images per second on the wall by the number of processes."""
    (of,) = (each for each in every if each.series.axis == "processes")
    images = max(point.size for each in every if each.series.work == of.series.work and each.series.axis == "N" for point in each.points)
    rows = [("processes", "seconds", "images/s"), ("---",) * 3]
    rows += [(str(point.size), f"{point.seconds:.1f}", f"{images / point.seconds:.0f}") for point in of.points]
    return f"{of.series.fixed}, each process one thread and its own decoding, without their start:\n\n" + "\n".join(
        f"| {' | '.join(row)} |" for row in rows
    )


def renew(document: Path, every: Sequence[Grown], machine: str) -> None:
    """Replace what stands between the marks of the page."""
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"'{document}' has not the lines '{BEGIN}' and '{END}', between which the tables go.")
    measured = f"{BEGIN}\n\n{machine}.\n\n{table(every)}\n\n{processes_table(every)}\n\n{END}"
    write_text(document, f"{before}{measured}{after}")
