"""The end of a run: tables and figures in its folder, and what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.text import aligned
from fewshot import overlap
from fewshot.figures import draw_accuracy, draw_overlap
from fewshot.gains import ALL_SHOTS, LEAST, Correlation, correlations, mean_gains
from fewshot.overlap import Overlap
from fewshot.results import Result, all_results, means, write_accuracy_table, write_cells_table, write_table
from fewshot.tables import accuracy_tables


def summarise(out: Path, results: Sequence[Result], overlaps: Sequence[Overlap]) -> str:
    """Write the tables and figures of this run's results below ``out``, and return what is to be printed.

    ``cells.csv`` has the results of earlier runs too; all else is of these alone.
    """
    of = means(results)
    both = overlap.before_and_after(overlaps)
    found = correlations(of, {name: before - after for name, (before, after) in both.items()})
    write_cells_table(out, all_results(out))
    write_accuracy_table(out, of)
    write_table(out / "overlap.csv", overlap.rows(overlaps))
    write_table(out / "correlation.csv", [_row(each) for each in found])
    drawn = [*draw_accuracy(of, out), *filter(None, [draw_overlap(both, mean_gains(of), out)])]
    said = [f"Accuracy in per cent{_deviation(results)}:", accuracy_tables(of), overlap.table(overlaps)]
    said += [correlation_table(found)] if any(each.n >= LEAST for each in found) else []
    return "\n\n".join([*said, f"Tables and figures ({', '.join(each.png.name for each in drawn) or 'none'}) are in {out}."])


def correlation_table(found: Sequence[Correlation]) -> str:
    """A line for each method that was corrected."""
    lines = [["gain against reduction of the overlap", "shots", "n", "Kendall's tau", "Spearman's rho"]]
    lines += [[each.method, _shots(each), str(each.n), _number(each.kendall), _number(each.spearman)] for each in found]
    return aligned(lines)


def _deviation(results: Sequence[Result]) -> str:
    seeds = {result["seed"] for result in results if result["shots"]}
    return f", mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else ""


def _shots(each: Correlation) -> str:
    return "mean" if each.shots == ALL_SHOTS else str(each.shots)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _row(each: Correlation) -> dict[str, object]:
    return {
        **{"method": each.method, "shots": _shots(each), "n": each.n},
        **{"kendall": "" if each.kendall is None else each.kendall, "spearman": "" if each.spearman is None else each.spearman},
    }
