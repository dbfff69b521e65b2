"""What a comparison of measures looks like on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from study.agreement import Bootstrap, PValue
from study.comparison import DIRECTIONS, Compared, Direction

COLUMNS = {"across tasks": ("R2", "p", "tau", "p", "weighted tau"), "across models": ("tau", "p", "weighted tau")}


def comparison_lines(rows: Sequence[Compared], level: float) -> list[str]:
    """One table for each group and outcome of both directions, then what to mind when reading them."""
    lines: list[str] = []
    for direction in DIRECTIONS:
        of_direction = [row for row in rows if row.direction == direction.name]
        if not of_direction:
            lines += ["", f"Nothing can be compared {direction.name}: the table has no two {direction.points} to compare."]
        for (group, outcome), part in groupby(of_direction, key=lambda row: (row.group, row.outcome)):
            lines += ["", f"{direction.name}, {', '.join(group)}: {outcome}", *_table(list(part), direction)]
    return [*lines, "", *_remarks(rows, level)]


def _table(rows: Sequence[Compared], direction: Direction) -> list[str]:
    cells = [("measure", direction.points, *COLUMNS[direction.name]), *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells if column < 2 or len(row) > 3) for column in range(len(cells[0]))]
    return ["  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells]


def _cells(row: Compared) -> tuple[str, ...]:
    if row.agreement is None:
        return row.measure, str(row.n), row.undefined
    of = row.agreement
    line = () if row.relation is None else (_value(row.relation.r2, row.relation.r2_interval), f"{row.relation.p:.2g}")
    return row.measure, str(row.n), *line, _value(of.tau, of.tau_interval), _p(of.tau_p), _value(of.weighted_tau, of.weighted_tau_interval)


def _value(value: float, interval: Bootstrap) -> str:
    if interval.low is None or interval.high is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _p(p: PValue) -> str:
    return f"{p.value:.2g}" if p.exact else f"~{p.value:.2g}"


def _remarks(rows: Sequence[Compared], level: float) -> list[str]:
    """How the intervals came about, and the traps that these very numbers set."""
    known = [row.agreement for row in rows if row.agreement is not None]
    remarks = [f"[low, high]: {100 * level:g} % percentile bootstrap over the points of a table."]
    undefined = max((of.tau_interval.undefined / of.tau_interval.resamples for of in known), default=0.0)
    if undefined:
        remarks.append(
            f"Resamples in which all scores or outcomes are the same have no tau and are left out: up to {undefined:.1%} of them."
        )
    if any(abs(of.tau) == 1 for of in known):
        remarks.append("[1, 1] and [-1, -1] are no certainty: whoever resamples a perfect order gets perfect orders only.")
    if not all(of.tau_p.exact for of in known):
        remarks.append("~p: normal approximation, since there are ties among many points.")
    if len({row.measure for row in rows}) > 2:
        remarks.append("The best of several measures on the same few points looks better than it is.")
    return remarks
