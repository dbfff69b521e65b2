"""What each measure costs, and the fine-tuning that it spares: seconds a task, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common.figures import BLUE, COLUMN, GREEN, ORANGE, PAGE, PALE, VERMILLION, Drawn, drawing, pages, panels, save, short
from study.analysis import Analysis
from study.costs import MeasureCost, TrainingCost

TALLEST, BAR = 9.0, 0.14  # inches: a page; each bar
LEAST = 1e-4  # seconds; less than can be told by a clock is drawn as this
PARTS = {  # field of MeasureCost -> words, marker, colour
    "embedding_seconds": ("embedding the images", "o", BLUE),
    "text_seconds": ("embedding the class texts", "s", ORANGE),
    "calculation_seconds": ("calculation", "^", GREEN),
}
CAPTION = (
    "Mean seconds a task: what a measure takes, embeddings included (a bar, with its parts as markers), and the whole grid of fine-tuning "
    "with one seed. The embeddings are made once and shared by all measures."
)


def draw_cost(analysis: Analysis, folder: Path) -> list[Drawn]:
    """A panel for each model: a bar for each measure, the cheapest on top, then one for each tuning."""
    found = [(model, _of(analysis.costs, model), _of(analysis.training_costs, model)) for model in analysis.models]
    known = [(model, costs, trainings) for model, costs, trainings in found if costs or trainings]
    if not known:
        return []
    columns, width = (1, COLUMN) if len(known) == 1 else (2, PAGE)
    height = 0.4 + BAR * max(len(costs) + len(trainings) for _, costs, trainings in known)
    drawn = []
    for end, some in pages(known, columns * max(1, int(TALLEST / height))):
        with drawing(width, 0.6 + height * -(-len(some) // columns)) as figure:
            for axes, (model, costs, trainings) in zip(panels(figure, len(some), columns, sharex=True), some, strict=True):
                _draw(axes, costs, trainings)
                axes.set_title(short(model, 40), fontsize=7)
            figure.legend(handles=_key(), loc="outside lower center", ncols=3 if width > 4 else 2, columnspacing=1)
            drawn.append(save(figure, folder, "cost" + end, CAPTION))
    return drawn


def _of(costs: Sequence[MeasureCost] | Sequence[TrainingCost], model: str) -> list:
    return [of for of in costs if of.model == model]


def _draw(axes: Axes, costs: Sequence[MeasureCost], trainings: Sequence[TrainingCost]) -> None:
    ordered = sorted(costs, key=lambda of: of.total_seconds)
    for at, of in enumerate(ordered):
        axes.barh(at, max(of.total_seconds, LEAST), height=0.72, color=PALE)
        for name, (_, marker, colour) in PARTS.items():
            if (seconds := getattr(of, name)) > 0:
                axes.plot(max(seconds, LEAST), at, marker, ms=3.2, color=colour, mec="white", mew=0.3, zorder=3)
    for at, training in enumerate(trainings, len(ordered)):
        axes.barh(at, max(training.seconds, LEAST), height=0.72, color=VERMILLION, hatch="////", ec="white", lw=0)
    names = [of.measure for of in ordered] + [f"tuning: {of.tuning}" for of in trainings]
    axes.set_yticks(range(len(names)), [short(name, 24) for name in names], fontsize=6.5)
    axes.set(xscale="log", xlabel="seconds a task", ylim=(len(names) - 0.4, -0.6), xlim=_limits(costs, trainings))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelbottom=True)
    axes.grid(axis="x", color=PALE, lw=0.4)
    axes.set_axisbelow(True)


def _limits(costs: Sequence[MeasureCost], trainings: Sequence[TrainingCost]) -> tuple[float, float]:
    """Whole powers of ten around all that is drawn."""
    parts = [getattr(of, name) for of in costs for name in (*PARTS, "total_seconds")]
    seconds = [max(value, LEAST) for value in [*parts, *(of.seconds for of in trainings)] if value > 0] or [1.0]
    low, high = 10.0 ** np.floor(np.log10(min(seconds))), 10.0 ** np.ceil(np.log10(max(seconds) * 1.01))
    return float(low / 2), float(high)


def _key() -> list[Line2D | Patch]:
    parts = [Line2D([], [], ls="none", marker=marker, ms=4, color=colour, label=words) for words, marker, colour in PARTS.values()]
    return [*parts, Patch(fc=PALE, label="all of a measure"), Patch(fc=VERMILLION, hatch="////", ec="white", lw=0, label="fine-tuning")]
