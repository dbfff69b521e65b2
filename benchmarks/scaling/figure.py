"""Seconds against size on logarithmic scales, a panel for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks.scaling.growth import Grown
from common.figures import GREY, PAGE, PALETTE, drawing, panels, write

FILES = ("read embeddings", "write embeddings", "finished study", "get_embeddings")
MOST_TICKS = 4
PANELS = (  # title, and which series are in it
    ("measures against images N", lambda of: of.axis == "N" and of.fixed.startswith("C =")),
    ("measures against classes C", lambda of: of.axis == "C" and "D =" in of.fixed),
    ("measures against dimensions D", lambda of: of.axis == "D"),
    ("retrieval and few-shot search", lambda of: of.work in ("retrieval", "few-shot search")),
    ("merging", lambda of: of.work.startswith("merge")),
    (
        "files, records, embedding",
        lambda of: of.work.split()[0] in ("read", "write", "finished", "get_embeddings") and of.axis != "processes",
    ),
)


def draw(every: Sequence[Grown], path: Path) -> None:
    """All panels; the number behind a name is the exponent."""
    with drawing(PAGE, 5.2) as figure:
        for axes, (title, wanted) in zip(panels(figure, len(PANELS), 3), PANELS, strict=True):
            _panel(axes, [of for of in every if wanted(of.series)], title)
        write(figure, path)


def _panel(axes: Axes, every: Sequence[Grown], title: str) -> None:
    axes.set(xscale="log", yscale="log", title=title, ylabel="CPU seconds")
    single = len({of.series.axis for of in every}) == 1
    for number, of in enumerate(every):
        sizes, cpu = [point.size for point in of.points], [point.cpu for point in of.points]
        name = of.series.work.removeprefix("merge, ") + ("" if single else f", {of.series.axis}")
        style = "-" if number < len(PALETTE) else "--"
        axes.plot(sizes, cpu, style, marker="o", ms=2.5, lw=0.9, color=PALETTE[number % len(PALETTE)], label=f"{name}: {of.exponent:.2f}")
    if len(ticks := sorted({point.size for of in every for point in of.points})) <= MOST_TICKS:
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])  # a power of ten need not be among them
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=5, loc="upper left", ncols=2 if len(every) > 5 else 1, handlelength=1.2, columnspacing=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    axes.tick_params(which="both", labelsize=6, color=GREY)
