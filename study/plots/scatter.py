"""Scatter plots: an outcome against a measure, a panel for each model and tuning, with the fitted line and its band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.figures import BLUE, GREY, PAGE, Drawn, columns_for, drawing, padded, pages, panels, remark, save, short
from study.analysis import Analysis, StudyFit
from study.plots.style import look, title_of
from study.prediction import GAIN, VALUES, WORDS

PANELS = 12  # to a figure
ROWS = 6  # of a component grid, to a figure


class Point(NamedTuple):
    """One task in a panel."""

    task: str
    score: float
    value: float


def draw_scatter(analysis: Analysis, folder: Path, outcome: str, name: str) -> list[Drawn]:
    """The predictor against the outcome, over the tasks of every model and tuning; nothing where no task has both."""
    pairs = [pair for pair in analysis.combinations if points_of(analysis, *pair, analysis.predictor, outcome)]
    drawn = []
    for end, some in pages(pairs, PANELS):
        columns, width = columns_for(len(some))
        rows = -(-len(some) // columns)
        with drawing(width, 0.5 + rows * (2.3 if columns < 3 else 1.95)) as figure:
            grid = panels(figure, len(some), columns, sharey=True)
            for axes, pair in zip(grid, some, strict=True):
                draw_panel(axes, analysis, pair, analysis.predictor, outcome)
                axes.set_title(f"{title_of(*pair)}\n{_statistics(analysis.fit(*pair, outcome=outcome))}", fontsize=7)
                axes.set_xlabel(analysis.predictor)
            _finish(figure, grid, columns, analysis, some, [analysis.predictor], outcome)
            drawn.append(save(figure, folder, name + end, _caption(analysis, f"{WORDS[outcome]} against {analysis.predictor}")))
    return drawn


def draw_components(analysis: Analysis, folder: Path, measures: Sequence[str]) -> list[Drawn]:
    """The gain against each of some measures: a row for each model and tuning, a column for each measure."""
    pairs = [pair for pair in analysis.combinations if any(points_of(analysis, *pair, measure, GAIN) for measure in measures)]
    drawn = []
    for end, some in pages(pairs, ROWS) if measures else []:
        with drawing(PAGE, 0.6 + 1.4 * len(some)) as figure:
            grid = panels(figure, len(some) * len(measures), len(measures), sharey="row")
            for index, axes in enumerate(grid):
                pair, measure = some[index // len(measures)], measures[index % len(measures)]
                draw_panel(axes, analysis, pair, measure, GAIN)
                fit = _statistics(analysis.fit(*pair, measure))
                axes.set_title(f"{title_of(*pair)}\n{fit}" if index % len(measures) == 0 else fit, fontsize=6.5)
                if index >= len(grid) - len(measures):
                    axes.set_xlabel(measure)
            _finish(figure, grid, len(measures), analysis, some, measures, GAIN)
            drawn.append(
                save(figure, folder, "components" + end, _caption(analysis, "gain over zero-shot error against single components"))
            )
    return drawn


def draw_panel(axes: Axes, analysis: Analysis, pair: tuple[str, str], measure: str, outcome: str) -> None:
    """The points of one model and tuning, with line and band where there is a fit."""
    points = points_of(analysis, *pair, measure, outcome)
    if not points:
        return remark(axes, "no task has both numbers", 20)
    axes.set_xlim(padded([point.score for point in points]))
    found = analysis.fit(*pair, measure, outcome)
    if found is not None and found.fit is not None:
        line, at = found.fit.line, np.linspace(*axes.get_xlim(), 200)
        axes.fill_between(at, *line.confidence_band(at, analysis.level), color=BLUE, alpha=0.22, lw=0)
        axes.plot(at, line.at(at), color=BLUE, lw=1.1)
    for point in points:
        axes.plot(point.score, point.value, **look(_order(analysis, point.task)), zorder=3)
    axes.axhline(0, color=GREY, lw=0.5, ls=(0, (1, 2)), zorder=0)
    axes.locator_params(axis="both", nbins=5)


def points_of(analysis: Analysis, model: str, tuning: str, measure: str, outcome: str) -> list[Point]:
    """The tasks of which both the score and the outcome are known."""
    known = [of for of in analysis.outcomes if (of.model, of.tuning) == (model, tuning)]
    pairs = [(of.task, of.score(measure), VALUES[outcome](of)) for of in known]
    return [Point(task, score, value) for task, score, value in pairs if score is not None and value is not None]


def _order(analysis: Analysis, task: str) -> int:
    return analysis.tasks.index(task)


def _statistics(found: StudyFit | None) -> str:
    if found is None or found.fit is None:
        return "no line can be fitted"
    line = found.fit.line
    p = "p < 0.001" if line.p < 0.001 else f"p = {line.p:.2g}"
    return f"$R^2$ = {line.r2:.2f}, {p}, n = {line.n}"


def _finish(
    figure: Figure,
    grid: Sequence[Axes],
    columns: int,
    analysis: Analysis,
    pairs: Sequence[tuple[str, str]],
    measures: Sequence[str],
    outcome: str,
) -> None:
    """Limits that the points decide and not the bands, one label for the outcome, and the key to the tasks."""
    for row in range(0, len(grid), columns):
        _limit(grid[row], [value for pair in pairs for measure in measures for value in _values(analysis, pair, measure, outcome)])
    figure.supylabel(WORDS[outcome], fontsize=7.5)
    shown = {point.task for pair in pairs for measure in measures for point in points_of(analysis, *pair, measure, outcome)}
    tasks = [task for task in analysis.tasks if task in shown]
    handles = [Line2D([], [], label=short(task, 18), **look(_order(analysis, task))) for task in tasks]
    figure.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(tasks, figure.get_figwidth()), handletextpad=0.1)


def _values(analysis: Analysis, pair: tuple[str, str], measure: str, outcome: str) -> list[float]:
    return [point.value for point in points_of(analysis, *pair, measure, outcome)]


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """All panels of a figure show the same range, with 0 in it, so that they can be compared."""
    low, high = padded([*values, 0.0], 0.12)
    axes.set_ylim(low, high)


def _legend_columns(tasks: Sequence[str], width: float) -> int:
    """As many as the longest name leaves room for: about 0.055 inches a letter and 0.3 for marker and gap."""
    longest = max((len(short(task, 18)) for task in tasks), default=1)
    return max(1, min(len(tasks), int(width / (0.055 * longest + 0.3))))


def _caption(analysis: Analysis, what: str) -> str:
    band = f"{100 * analysis.level:g} %"
    return f"{what[0].upper()}{what[1:]}, a point for each task, with the line of least squares and its {band} confidence band."
