"""The plot of a prediction: known tasks, the lines fitted to them, and new tasks with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from common.figures import BLUE, COLUMN, GREY, VERMILLION, check_suffix, drawing, padded, panels, write
from common.labels import boxes_along, label_points
from study.prediction import GAIN, WORDS, Estimate, Fit, Prediction
from study.regression import Line

HEIGHT = 3.0  # inches


class NewPoint(NamedTuple):
    """A new task in one panel."""

    name: str
    score: float
    estimate: Estimate


def plot_prediction(path: Path, fits: Mapping[str, Fit], predictions: Sequence[Prediction], level: float = 0.95) -> None:
    """Write a panel for each fit: known tasks, line, confidence band, prediction interval, new tasks with their intervals."""
    check_suffix(path)
    with drawing(COLUMN * len(fits), HEIGHT) as figure:
        drawn = list(zip(panels(figure, len(fits), len(fits)), fits.values(), strict=True))
        for axes, fit in drawn:
            _draw(axes, fit, _new_points(fit, predictions), level)
        figure.legend(*drawn[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2 if len(fits) == 1 else 5)
        figure.canvas.draw()  # lays out, after which it is known where a label would cover what
        figure.set_layout_engine("none")
        for axes, fit in drawn:
            _label(axes, fit, _new_points(fit, predictions))
        write(figure, path)


def _new_points(fit: Fit, predictions: Sequence[Prediction]) -> list[NewPoint]:
    found = [(of.task, of.gain if fit.outcome == GAIN else of.mean_change_elsewhere) for of in predictions]
    return [NewPoint(task.name or Path(task.file).stem, task.score, estimate) for task, estimate in found if estimate is not None]


def _draw(axes: Axes, fit: Fit, new: Sequence[NewPoint], level: float) -> None:
    line, scores = fit.line, [point.score for point in new]
    left, right = padded([*line.x.tolist(), *scores], 0.1)
    at, share = np.linspace(left, right, 200), f"{100 * level:g} %"
    axes.fill_between(at, *line.prediction_interval(at, level), color=BLUE, alpha=0.13, lw=0, label=f"{share} prediction interval")
    axes.fill_between(at, *line.confidence_band(at, level), color=BLUE, alpha=0.28, lw=0, label=f"{share} confidence band")
    axes.plot(at, line.at(at), color=BLUE, lw=1.2, label="fitted line")
    axes.plot(line.x, line.y, "o", color="black", ms=3.5, label="known tasks")
    if new:
        values, low, high = np.asarray([(point.estimate.value, point.estimate.low, point.estimate.high) for point in new]).T
        axes.errorbar(scores, values, [values - low, high - values], fmt="D", color=VERMILLION, ms=4.5, lw=1, capsize=2.5, label="new task")
    axes.set(xlim=(left, right), ylim=_height(line, new, level), xlabel=fit.measure, ylabel=WORDS[fit.outcome])
    axes.locator_params(axis="x", nbins=6)
    axes.set_title(f"$R^2$ = {line.r2:.2f}, p = {line.p:.2g}, n = {line.n}", color=GREY)


def _label(axes: Axes, fit: Fit, new: Sequence[NewPoint]) -> None:
    """Names beside all points, clear of the line and of the new tasks' intervals."""
    left, right = axes.get_xlim()
    taken = [boxes_along(axes, (left, float(fit.line.at(left))), (right, float(fit.line.at(right))))]
    taken += [boxes_along(axes, (point.score, point.estimate.low), (point.score, point.estimate.high)) for point in new]
    points = [(point.score, point.estimate.value) for point in new]
    bold = {"fontsize": 7, "color": VERMILLION, "fontweight": "bold"}
    with_new = label_points(axes, [point.name for point in new], points, np.concatenate(taken), **bold)
    known = list(zip(fit.line.x.tolist(), fit.line.y.tolist(), strict=True))
    label_points(axes, [of.task for of in fit.known], known, with_new, fontsize=7, color="black")


def _height(line: Line, new: Sequence[NewPoint], level: float) -> tuple[float, float]:
    """Limits that show all points and of the intervals as much as leaves the points most of the room."""
    low, high = float(line.y.min()), float(line.y.max())
    bands = [(*band, 0.5) for band in zip(*line.prediction_interval(line.x, level), strict=True)]
    bands += [(point.estimate.low, point.estimate.high, 1.0) for point in new]
    ends = [max(lower, low - room * (high - low)) for lower, _, room in bands]
    ends += [min(upper, high + room * (high - low)) for _, upper, room in bands]
    return padded([low, high, *(point.estimate.value for point in new), *ends], 0.1)
