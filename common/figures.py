"""What all figures share: sizes of a two-column paper, colours for the colour-blind, panels, writing to files.

Drawn with Matplotlib's Agg and PDF backends, so no display is needed. The PDF embeds its fonts as TrueType, as publishers ask.
Needs Matplotlib when imported: scripts import it after their arguments are parsed.
"""

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
from numpy.typing import ArrayLike

from common.errors import UserError
from common.files import replacing, slug

COLUMN, PAGE = 3.3, 6.9  # inches: the width of one column and of both
DPI = 300
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe and Ito, "Color Universal Design" (2008)
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)  # without their yellow, which is too pale for points and lines
GREY, PALE = "#5F5F5F", "#D9D9D9"
SUFFIXES = (".png", ".pdf")
STYLE: Any = {
    **{"font.family": "sans-serif", "font.size": 8, "axes.labelsize": 7.5, "axes.titlesize": 7.5},
    **{"axes.titlelocation": "left", "axes.titlepad": 3, "xtick.labelsize": 7, "ytick.labelsize": 7},
    **{"legend.fontsize": 7, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
    **{"pdf.fonttype": 42, "savefig.dpi": DPI, "figure.dpi": DPI},
}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn:
    """A figure that was written, once as PDF for a paper and once as PNG for a screen."""

    name: str
    caption: str
    pdf: Path
    png: Path


def short(name: str, length: int = 26) -> str:
    """The name, with its middle left out where it is longer; dollar signs are escaped, since Matplotlib reads mathematics there."""
    kept = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length - length // 2) :]}"
    return kept.replace("$", r"\$")


def pages(items: Sequence[Item], most: int) -> list[tuple[str, Sequence[Item]]]:
    """The items in as many figures as they need, each with the end of its name: nothing, then _2, _3 and so on."""
    starts = range(0, len(items), most)
    return [("" if start == 0 else f"_{number}", items[start : start + most]) for number, start in enumerate(starts, 1)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of this size in inches, in the style of all."""
    with mpl.rc_context(STYLE):
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


def density_curve(axes: Axes, edges: ArrayLike, counts: ArrayLike, mean: float | None = None, **style: Any) -> None:
    """The outline of a histogram [B + 1], [B] as a density, without its empty ends, and its mean as a dot on the axis.

    ``mean`` is that of the values; without it the mean of the bins' middles is marked.
    """
    edges, counts = np.asarray(edges, np.float64), np.asarray(counts, np.float64)
    filled = np.flatnonzero(counts > 1e-4 * counts.max())
    first, last = filled[0], filled[-1] + 1
    edges, counts = edges[first : last + 1], counts[first:last]
    density = counts / (counts.sum() * np.diff(edges))
    axes.stairs(density, edges, lw=0.9, **style)
    axes.stairs(density, edges, fill=True, color=style.get("color"), alpha=0.12)
    mean = float((edges[1:] + edges[:-1]) @ counts / 2 / counts.sum()) if mean is None else mean
    axes.plot(mean, 0, "o", ms=2.6, color=style.get("color"), mec="white", mew=0.3, clip_on=False, zorder=4)


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Limits a little beyond all values; apart even where all values are the same."""
    low, high = float(np.min(values)), float(np.max(values))
    reach = share * (high - low) or 0.05 * abs(high) or 0.05
    return low - reach, high + reach


def save(figure: Figure, folder: Path, name: str, caption: str) -> Drawn:
    """Write both files."""
    stem = slug(name)
    drawn = Drawn(stem, caption, folder / f"{stem}.pdf", folder / f"{stem}.png")
    for path in (drawn.pdf, drawn.png):
        write(figure, path)
    return drawn


def check_suffix(path: Path) -> None:
    """UserError unless the file's name says PNG or PDF."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"'{path}' does not end in {' or '.join(SUFFIXES)}, which the plot can be written as.")


def write(figure: Figure, path: Path) -> None:
    """Write one file of the kind that its name says, without the time of writing: the same numbers give the same file."""
    check_suffix(path)
    kind = path.suffix.lower().lstrip(".")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {"Software": None})
