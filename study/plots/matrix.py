"""Heat maps of forgetting: trained on x evaluated on, change of accuracy in points, colours centred at 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from common.figures import BLACK, BLUE, COLUMN, PAGE, PALE, VERMILLION, Drawn, drawing, pages, panels, save, short
from study.forgetting import ForgettingMatrix
from study.plots.style import title_of

COLOURS = LinearSegmentedColormap.from_list("change", [VERMILLION, "#FFFFFF", BLUE]).with_extremes(bad=PALE)
TALLEST = 9.0  # inches: a page
NAME = 16  # letters of a task's name


def draw_forgetting(matrices: Sequence[ForgettingMatrix], folder: Path) -> list[Drawn]:
    """A heat map for each model and tuning, all on one symmetric scale."""
    known = [of for of in matrices if not np.isnan(of.change).all()]
    if not known:
        return []
    wide, high = max(len(of.evaluated_on) for of in known), max(len(of.trained_on) for of in known)
    columns = min(len(known), 3 if wide <= 4 else 2 if wide <= 6 else 1)
    width = COLUMN if columns == 1 and wide <= 6 else PAGE
    height = 0.95 + min(0.3, width / columns / (wide + 2), 2.7 / high) * high
    scale, drawn = _scale(known), []
    for end, some in pages(known, columns * max(1, int(TALLEST / height))):
        rows = -(-len(some) // columns)
        with drawing(width, 0.45 + rows * height) as figure:
            grid = panels(figure, len(some), columns)
            for axes, of in zip(grid, some, strict=True):
                _draw(axes, of, scale)
            _key(figure, grid, known, scale)
            drawn.append(save(figure, folder, "forgetting_matrix" + end, CAPTION))
    return drawn


CAPTION = (
    "Change of accuracy against zero-shot, in points, after training on the task of the row, on the task of the column. The colours "
    "reach to the greatest change on a task that was not trained on; tasks that were trained on are framed and may lie beyond."
)


def _scale(matrices: Sequence[ForgettingMatrix]) -> float:
    """The greatest change, in points, off the diagonals; of all where nothing lies off them."""
    elsewhere = [abs(value) for of in matrices for row, column, value in _entries(of) if of.trained_on[row] != of.evaluated_on[column]]
    everything = [abs(value) for of in matrices for _, _, value in _entries(of)]
    return max(elsewhere, default=0.0) or max(everything) or 1.0


def _entries(of: ForgettingMatrix) -> list[tuple[int, int, float]]:
    return [(row, column, 100 * float(value)) for (row, column), value in np.ndenumerate(of.change) if not np.isnan(value)]


def _draw(axes: Axes, of: ForgettingMatrix, scale: float) -> None:
    axes.imshow(100 * of.change, cmap=COLOURS, norm=Normalize(-scale, scale), aspect="auto")
    for row, column, value in _entries(of):
        colour = "white" if abs(value) > 0.75 * scale else BLACK
        axes.text(column, row, _points(value), ha="center", va="center", fontsize=6, color=colour)
    for row, task in enumerate(of.trained_on):
        if task in of.evaluated_on:
            at = of.evaluated_on.index(task)
            axes.add_patch(Rectangle((at - 0.5, row - 0.5), 1, 1, fill=False, ec=BLACK, lw=0.9, clip_on=False, zorder=3))
    for row, column in np.argwhere(np.isnan(of.change)):
        axes.text(column, row, "–", ha="center", va="center", fontsize=6)
    axes.set_xticks(
        range(len(of.evaluated_on)), [short(task, NAME) for task in of.evaluated_on], rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(of.trained_on)), [short(task, NAME) for task in of.trained_on])
    axes.tick_params(length=0, pad=2, labelsize=6.5)
    axes.spines[:].set_visible(False)
    axes.set_title(title_of(of.model, of.tuning), fontsize=7)


def _points(value: float) -> str:
    """With a minus as wide as a plus, and without one where it rounds to 0."""
    text = f"{value:.1f}"
    return "0.0" if text in ("0.0", "-0.0") else text.replace("-", "−")


def _key(figure: Figure, grid: Sequence[Axes], matrices: Sequence[ForgettingMatrix], scale: float) -> None:
    values = [value for of in matrices for _, _, value in _entries(of)]
    beyond = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    extend = beyond[min(values) < -scale, max(values) > scale]
    bar = figure.colorbar(
        ScalarMappable(Normalize(-scale, scale), COLOURS), ax=list(grid), extend=extend, aspect=25, pad=0.02, fraction=0.04
    )
    bar.set_label("change of accuracy (points)", fontsize=7)
    bar.outline.set_visible(False)
    figure.supxlabel("evaluated on", fontsize=7.5)
    figure.supylabel("trained on", fontsize=7.5)
