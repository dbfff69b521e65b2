"""Accuracy against the number of shots, and overlap before and after the adapter. Written as PDF and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from common.figures import BLUE, GREY, ORANGE, PALE, PALETTE, Drawn, columns_for, drawing, pages, panels, save, short
from common.labels import boxes_along, label_points
from fewshot.method import CORRECTED
from fewshot.results import Mean
from fewshot.tables import ZERO_SHOT, Means, average, data_sets

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one more than colours: together they tell 56 methods apart
ROWS = 4  # of panels to a page


def draw_accuracy(means: Means, folder: Path) -> list[Drawn]:
    """A panel for each data set, and one for their mean: a line for each method, a band of one deviation over seeds on either side.

    A corrected method has the colour of its original and a solid line, the original a dashed one. Shots are on a logarithmic axis;
    zero-shot accuracy is a horizontal line. Nothing is drawn without a method that has shots.
    """
    methods = list(dict.fromkeys(method for _, method, shots in means if shots))
    if not methods:
        return []
    shown = {**means, **(average(means) if len(data_sets(means, only_own=True)) > 1 else {})}
    columns, width = columns_for(len(data_sets(shown)))
    drawn = []
    for end, some in pages(data_sets(shown), ROWS * columns):
        with drawing(width, 0.55 + 1.75 * -(-len(some) // columns)) as figure:
            for axes, dataset in zip(panels(figure, len(some), columns), some, strict=True):
                _panel(axes, dataset, methods, shown)
            figure.supylabel("accuracy (%)", fontsize=7.5)
            handles = _key(methods, shown)
            columns_of_key = min(-(-len(handles) // 2), 4 if width > 4 else 2)  # a method and its correction, one below the other
            figure.legend(handles=handles, loc="outside lower center", ncols=columns_of_key, handlelength=2.6)
            drawn.append(save(figure, folder, "accuracy" + end, "Accuracy against shots; bands: one deviation over seeds."))
    return drawn


def _panel(axes: Axes, dataset: str, methods: Sequence[str], means: Means) -> None:
    counts = sorted({shots for of, _, shots in means if of == dataset and shots})
    for method in methods:
        points = [(shots, means[dataset, method, shots]) for shots in counts if (dataset, method, shots) in means]
        if points:
            _line(axes, points, _style(method, methods))
    if (zero_shot := means.get((dataset, ZERO_SHOT, 0))) is not None:
        axes.axhline(100 * zero_shot.mean, color=GREY, lw=0.9, ls=":")
    axes.set_ylim(_limits(axes.get_ylim()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_title(short(dataset, 34), fontsize=7)
    axes.set_xlabel("shots")
    axes.grid(axis="y", color=PALE, lw=0.4)
    axes.set_axisbelow(True)


def _limits(limits: tuple[float, float]) -> tuple[float, float]:
    """Per cent: at least two points, lest a single image look like much, and nothing far above 100."""
    low, high = limits
    wider = max(0.0, 2 - (high - low)) / 2
    return low - wider, min(high + wider, 100.5)


def _line(axes: Axes, points: Sequence[tuple[int, Mean]], style: Mapping[str, Any]) -> None:
    shots = [count for count, _ in points]
    middle = 100 * np.array([mean.mean for _, mean in points])
    half = 100 * np.array([mean.deviation or 0.0 for _, mean in points])
    axes.plot(shots, middle, **style)
    axes.fill_between(shots, middle - half, middle + half, color=style["color"], alpha=0.09, lw=0)


def _style(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """A colour and marker for each method without its correction; solid lines are corrected, or have no correction."""
    plain = list(dict.fromkeys(name.removesuffix(CORRECTED) for name in methods))
    number = plain.index(method.removesuffix(CORRECTED))
    corrected = method.endswith(CORRECTED) or method + CORRECTED not in methods
    color = PALETTE[number % len(PALETTE)]
    style = {"color": color, "marker": MARKERS[number % len(MARKERS)], "ls": "-" if corrected else (0, (3, 1.5))}
    return style | {"lw": 1.1, "ms": 3.2, "mec": color, "mfc": color if corrected else "white", "mew": 0.6}


def _key(methods: Sequence[str], means: Means) -> list[Line2D]:
    lines = [Line2D([], [], label=method.replace("_", " "), **_style(method, methods)) for method in methods]
    known = any(method == ZERO_SHOT for _, method, _ in means)
    return lines + ([Line2D([], [], color=GREY, lw=0.9, ls=":", label="zero shot")] if known else [])


def draw_overlap(overlaps: Mapping[str, tuple[float, float]], gains: Mapping[str, float], folder: Path) -> Drawn | None:
    """Overlap {data set: (before, after)} as pairs of points and, beside it, the mean gain {data set: fraction} against the reduction.

    Data sets come in the order of their overlap before. Nothing is drawn without one.
    """
    if not overlaps:
        return None
    names = sorted(overlaps, key=lambda name: overlaps[name][0])
    columns, width = columns_for(2 if gains else 1)
    with drawing(width, max(1.7, 0.6 + 0.17 * len(names))) as figure:
        left, *right = panels(figure, 2 if gains else 1, columns)
        _pairs(left, names, overlaps)
        for axes in right:
            points = {name: (overlaps[name][0] - overlaps[name][1], 100 * gains[name]) for name in names if name in gains}
            _scatter(axes, points)
            figure.draw_without_rendering()  # labels are placed in the final layout
            _names(axes, points)
        return save(figure, folder, "overlap", "Overlap of image similarities before and after the adapter, and what the correction gains.")


def _pairs(axes: Axes, names: Sequence[str], overlaps: Mapping[str, tuple[float, float]]) -> None:
    for at, name in enumerate(names):
        before, after = overlaps[name]
        axes.plot([before, after], [at, at], color=GREY, lw=0.9, zorder=1)
        axes.plot(before, at, "o", ms=4, color=BLUE, mec="white", mew=0.3, label="original" if at == 0 else None)
        axes.plot(after, at, "s", ms=4, color=ORANGE, mec="white", mew=0.3, label="adapted" if at == 0 else None)
    axes.set_yticks(range(len(names)), [short(name, 22) for name in names])
    axes.set(xlabel="overlap of test images", ylim=(-0.6, len(names) - 0.4))
    axes.legend(loc="best", handletextpad=0.2)
    axes.grid(axis="x", color=PALE, lw=0.4)
    axes.set_axisbelow(True)


def _names(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """The data sets' names beside their points, clear of the line of no gain."""
    left, right = axes.get_xlim()
    label_points(axes, [short(name, 18) for name in points], [*points.values()], boxes_along(axes, (left, 0), (right, 0)), fontsize=6)


def _scatter(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    for at in points.values():
        axes.plot(*at, "o", ms=3.6, color=BLUE, mec="white", mew=0.3)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.margins(0.18)
    axes.locator_params(nbins=5)
    axes.set(xlabel="reduction of the overlap", ylabel="mean gain (points)")
