"""What the figures share: sizes of a two-column paper, colours and markers for the colour-blind, panels, writing to files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import replacing, slug
from study.figures import BLUE, GREY, STYLE, VERMILLION

COLUMN, PAGE = 3.3, 6.9  # inches: the width of one column and of both
ORANGE, SKY, GREEN, YELLOW, PURPLE, BLACK = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)  # Okabe and Ito (2008); their yellow is too pale for points
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")  # 7 and 11 have no common factor: 77 pairs differ
PALE = "#D9D9D9"
STUDY_STYLE: Any = {**STYLE, "axes.titlesize": 7.5, "axes.labelsize": 7.5, "axes.titlelocation": "left", "axes.titlepad": 3}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn:
    """A figure that was written, once as PDF for a paper and once as PNG for a screen."""

    name: str
    caption: str
    pdf: Path
    png: Path


def look(index: int) -> dict[str, Any]:
    """The point of the index-th task, the same in every figure; a star is drawn larger, since it is thin."""
    marker = MARKERS[index % len(MARKERS)]
    return {
        "ls": "none",
        "marker": marker,
        "ms": 6 if marker == "*" else 4,
        "color": PALETTE[index % len(PALETTE)],
        "mec": "white",
        "mew": 0.4,
    }


def short(name: str, length: int = 26) -> str:
    """The name, with its middle left out where it is longer; dollar signs are escaped, since Matplotlib reads mathematics there."""
    kept = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length - length // 2) :]}"
    return kept.replace("$", r"\$")


def title_of(model: str, tuning: str) -> str:
    """What stands above a panel of one model and tuning."""
    return f"{short(model)}, {short(tuning, 18)}"


def pages(items: Sequence[Item], most: int) -> list[tuple[str, Sequence[Item]]]:
    """The items in as many figures as they need, each with the end of its name: nothing, then _2, _3 and so on."""
    starts = range(0, len(items), most)
    return [("" if start == 0 else f"_{number}", items[start : start + most]) for number, start in enumerate(starts, 1)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of this size in inches, in the style of all."""
    with mpl.rc_context(STUDY_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def panels(figure: Figure, count: int, columns: int, **shared: Any) -> list[Axes]:
    """``count`` panels in rows of ``columns``, without the empty ones at the end of the last row."""
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel()
    for axes in grid[count:]:
        axes.remove()
    return list(grid[:count])


def columns_for(count: int) -> tuple[int, float]:
    """In how many columns that many panels go, and how wide the figure is then."""
    return (1, COLUMN) if count == 1 else (2, PAGE) if count in (2, 4) else (3, PAGE)


def remark(axes: Axes, text: str, width: int = 34) -> None:
    """A sentence in the middle of a panel, for what cannot be drawn."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    wrapped = textwrap.fill(text.replace("$", r"\$"), width)
    axes.text(0.5, 0.5, wrapped, transform=axes.transAxes, ha="center", va="center", fontsize=6.5, color=GREY, bbox=box)


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Limits a little beyond all values; apart even where all values are the same."""
    low, high = float(np.min(values)), float(np.max(values))
    reach = share * (high - low) or 0.05 * abs(high) or 0.05
    return low - reach, high + reach


def save(figure: Figure, folder: Path, name: str, caption: str) -> Drawn:
    """Write both files, without the time of writing: the same numbers give the same file."""
    stem = slug(name)
    paths = {kind: folder / f"{stem}.{kind}" for kind in ("pdf", "png")}
    for kind, path in paths.items():
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {"Software": None})
    return Drawn(stem, caption, paths["pdf"], paths["png"])
