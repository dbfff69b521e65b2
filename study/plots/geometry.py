"""Histograms of cosines: images of the same and of different classes, images with the right and with wrong class texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.figures import BLUE, GREEN, ORANGE, PAGE, VERMILLION, Drawn, density_curve, drawing, pages, panels, remark, save, short
from study.collected import Collected, EmbedRow

ROWS = 12  # of panels to a figure
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "same_class": ("two images of one class", {"color": BLUE, "ls": "-"}),
    "different_class": ("two images of different classes", {"color": ORANGE, "ls": (0, (4, 1.2))}),
    "image_text_right": ("image and its class text", {"color": GREEN, "ls": "-."}),
    "image_text_wrong": ("image and another class text", {"color": VERMILLION, "ls": (0, (1, 1))}),
}
CAPTION = "Cosines of embeddings before any fine-tuning, up to 2000 training images a task; each curve has area 1, the dots mark the means."


def draw_geometry(collected: Collected, models: Sequence[str], folder: Path) -> list[Drawn]:
    """A panel for each model and task: tasks down and models across, or rows of four where there is one model."""
    known = {(row["model"], row["task"]): row for row in collected.embeds if row["histograms"]}
    shown = [model for model in models if any(of == model for of, _ in known)]
    tasks = list(dict.fromkeys(task for _, task in known))
    across = len(shown) if len(shown) > 1 else min(4, len(tasks))
    drawn: list[Drawn] = []
    if not known:
        return drawn
    for end, some in pages([(model, task) for task in tasks for model in shown], ROWS * across):
        rows = -(-len(some) // across)
        with drawing(PAGE, 0.75 + rows * (1.25 if rows < 6 else 0.95)) as figure:
            grid = panels(figure, len(some), across, sharex=len(shown) == 1)
            for axes, (model, task) in zip(grid, some, strict=True):
                _panel(axes, known.get((model, task)), f"{short(task, 16)}, {short(model, 16)}" if len(shown) > 1 else short(task))
            _finish(figure, grid, across)
            drawn.append(save(figure, folder, "geometry" + end, CAPTION))
    return drawn


def _panel(axes: Axes, row: EmbedRow | None, title: str) -> None:
    axes.set_title(title, fontsize=7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if row is None:
        return remark(axes, "not embedded", 20)
    for name, (_, style) in LOOKS.items():
        if sum((histogram := row["histograms"].get(name) or {"counts": []})["counts"]):
            density_curve(axes, histogram["edges"], histogram["counts"], **style)
    axes.set_ylim(bottom=0)


def _finish(figure: Figure, grid: Sequence[Axes], columns: int) -> None:
    for index, axes in enumerate(grid):
        axes.tick_params(labelbottom=True)
        axes.locator_params(axis="x", nbins=5)
        if index + columns >= len(grid):
            axes.set_xlabel("cosine")
    figure.supylabel("density", fontsize=7.5)
    handles = [Line2D([], [], lw=1.1, label=label, color=style["color"], ls=style["ls"]) for label, style in LOOKS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if len(grid) == 1 else 4, handlelength=2.2, columnspacing=1)
