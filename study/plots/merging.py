"""The figures of a study's merging: averages as bars, accuracies as heat maps, curves of the scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common.figures import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PAGE,
    PALE,
    PALETTE,
    PURPLE,
    Drawn,
    columns_for,
    drawing,
    pages,
    panels,
    save,
    short,
)  # fmt: skip
from common.files import slug
from study.cells import short as short_name
from study.collected import Collected
from study.merging_comparison import ComparedRow, compare_merging
from study.merging_results import (
    BASE,
    DATA_FREE,
    MERGE,
    NEEDS,
    OWN,
    PER_TASK,
    TRANSDUCTIVE,
    WITH_IMAGES,
    Curve,
    Encoder,
    MergingTable,
    curves,
    merging_tables,
)  # fmt: skip
from study.plan import Plan
from study.plots.style import MARKERS
from study.published_merging import ALL_TASKS, PUBLISHED_MERGING, SEEN

COLOURS = {DATA_FREE: BLUE, WITH_IMAGES: GREEN, TRANSDUCTIVE: ORANGE, PER_TASK: PURPLE}
HATCHES = {DATA_FREE: None, WITH_IMAGES: "....", TRANSDUCTIVE: "////", PER_TASK: "xxxx"}
SHADES = LinearSegmentedColormap.from_list("accuracy", ["#FFFFFF", "#9CC9E8", "#0B4F82"]).with_extremes(bad=PALE)
BAR, ROW, TALLEST, NAME = 0.15, 0.17, 9.0, 30  # inches for a bar, for a row of a heat map, for a page; letters of a name
REFERENCES = {BASE: (":", "base, zero-shot"), OWN: ("--", "fine-tuned, each on its task")}


def figure_name(kind: str, model: str) -> str:
    """What a figure of a model is called."""
    return slug(f"{kind}_{short_name(model)}")


def draw_merging(collected: Collected, plan: Plan, folder: Path) -> list[Drawn]:
    """Every figure that there are numbers for."""
    drawn: list[Drawn] = []
    for table in merging_tables(collected, plan):
        compared = compare_merging(table) if plan.published in PUBLISHED_MERGING else []
        drawn += [*draw_averages(table, compared, folder), *_fine_tunes(table, folder), *_robustness(table, folder)]
        if found := curves(table):
            drawn.append(draw_curves(table, found, folder))
    return drawn


def draw_averages(table: MergingTable, compared: Sequence[ComparedRow], folder: Path) -> Iterator[Drawn]:
    """A bar for every merge, the best on top, between lines of the base and of the fine-tunes; dots of unseen and published averages."""
    averages = {encoder: score.value for encoder in table.merges if (score := table.average(encoder)) is not None}
    ranked = sorted(averages, key=lambda encoder: -averages[encoder])
    printed = _printed(compared)
    for end, some in pages(ranked, int(TALLEST / BAR)):
        with drawing(PAGE, 1.1 + BAR * len(some)) as figure:
            (axes,) = panels(figure, 1, 1)
            for at, encoder in enumerate(some):
                need = table.need(encoder)
                axes.barh(at, averages[encoder], height=0.72, color=COLOURS[need], hatch=HATCHES[need], ec="white", lw=0)
            key = [*_needs(table), *_references(axes, table), *_dots(axes, table, some, printed)]
            axes.set(ylim=(len(some) - 0.4, -0.6), xlim=(0, 100), xlabel="top-1 accuracy (%), mean over the tasks")
            axes.set_yticks(range(len(some)), [f"{short(table.name(encoder), NAME)}   {averages[encoder]:.1f}" for encoder in some])
            axes.tick_params(axis="y", length=0)
            figure.legend(handles=key, loc="outside lower center", ncols=2)
            yield save(figure, folder, figure_name("merges", table.model) + end, _caption(table, bool(printed)))


def _printed(compared: Sequence[ComparedRow]) -> dict[Encoder, float]:
    """The published averages over the merged tasks, clean."""
    found = {}
    for row in compared:
        name = next((name for name in (ALL_TASKS, SEEN) if name in row.published.accuracies), None)
        if row.encoder is not None and row.corruption is None and name is not None:
            found[row.encoder] = row.published.accuracies[name]
    return found


def _needs(table: MergingTable) -> list[Patch]:
    return [Patch(fc=COLOURS[need], hatch=HATCHES[need], ec="white", lw=0, label=need) for need in NEEDS if need in table.by_need()]


def _references(axes: Axes, table: MergingTable) -> Iterator[Line2D]:
    """Lines of the base and of the fine-tunes."""
    for encoder in table.encoders:
        if encoder.kind != MERGE and (score := table.average(encoder)) is not None:
            dashes, label = REFERENCES[encoder.kind]
            yield axes.axvline(score.value, ls=dashes, color=BLACK, lw=0.8, zorder=3, label=f"{label}: {score.value:.1f}")


def _dots(axes: Axes, table: MergingTable, encoders: Sequence[Encoder], printed: dict[Encoder, float]) -> Iterator[Line2D]:
    """Averages over the tasks that were not merged, and published averages."""
    unseen = [table.average(encoder, table.plan.eval_tasks) if table.plan.eval_tasks else None for encoder in encoders]
    points = [(score.value, at) for at, score in enumerate(unseen) if score is not None]
    if points:
        yield axes.plot(*zip(*points, strict=True), "o", ms=3.4, mfc=BLACK, mec="white", mew=0.5, zorder=4, label="unseen tasks")[0]
    if known := [(printed[encoder], at) for at, encoder in enumerate(encoders) if encoder in printed]:
        yield axes.plot(*zip(*known, strict=True), "D", ms=3.4, mfc="white", mec=BLACK, mew=0.7, zorder=4, label="published")[0]


def _caption(table: MergingTable, printed: bool) -> str:
    unseen = " dots: over the tasks that were not merged;" if table.plan.eval_tasks else ""
    return (
        f"{table.model}. Mean accuracy over the {len(table.plan.tasks)} merged tasks of every merge, by what it needs;{unseen}"
        + (" diamonds: as published;" if printed else "")
        + " lines: the base and the fine-tunes, each on its own task."
    )


class Grid(NamedTuple):
    """Accuracies in %, [rows, columns], NaN where unknown."""

    rows: list[str]
    columns: list[str]
    values: np.ndarray  # type: ignore[type-arg]


def _fine_tunes(table: MergingTable, folder: Path) -> Iterator[Drawn]:
    if table.fine_tunes:
        encoders = [*(encoder for encoder in table.encoders if encoder.kind == BASE), *table.fine_tunes]
        tasks = [*table.plan.tasks, *table.plan.eval_tasks]
        values = [[_value(table.score(encoder, task)) for task in tasks] for encoder in encoders]
        grid = Grid([encoder.label for encoder in encoders], tasks, np.asarray(values))
        caption = f"{table.model}. Accuracy in % of the base and of every fine-tune (rows) on every task (columns)."
        yield from draw_grid(grid, folder, figure_name("fine-tunes", table.model), caption, "tested on", "tuned on")


def _robustness(table: MergingTable, folder: Path) -> Iterator[Drawn]:
    if table.plan.corruptions:
        images = [None, *table.plan.corruptions]
        values = [[_value(table.average(encoder, corruption=name)) for name in images] for encoder in table.encoders]
        grid = Grid([table.name(encoder) for encoder in table.encoders], [name or "clean" for name in images], np.asarray(values))
        caption = f"{table.model}. Mean accuracy in % over the {len(table.plan.tasks)} merged tasks, by the corruption of the test images."
        yield from draw_grid(grid, folder, figure_name("robustness", table.model), caption, "test images", "")


def _value(score: object) -> float:
    return float("nan") if score is None else score.value  # type: ignore[attr-defined, no-any-return]


def draw_grid(grid: Grid, folder: Path, name: str, caption: str, across: str, down: str) -> Iterator[Drawn]:
    """A heat map with the numbers in it, from 0 to 100; nothing where no number is known."""
    if np.isnan(grid.values).all():
        return
    width = min(PAGE, max(COLUMN, 1.5 + 0.42 * len(grid.columns)))
    for end, some in pages(range(len(grid.rows)), int((TALLEST - 1.2) / ROW)):
        with drawing(width, 1.2 + ROW * len(some)) as figure:
            (axes,) = panels(figure, 1, 1)
            values = grid.values[list(some)]
            axes.imshow(values, cmap=SHADES, vmin=0, vmax=100, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                text, colour = ("–", GREY) if np.isnan(value) else (f"{value:.1f}", "white" if value > 65 else BLACK)
                axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
            axes.set_xticks(
                range(len(grid.columns)), [short(of, 18) for of in grid.columns], rotation=40, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(range(len(some)), [short(grid.rows[row], NAME) for row in some])
            axes.tick_params(length=0, pad=2, labelsize=6.5)
            axes.spines[:].set_visible(False)
            axes.set(xlabel=across, ylabel=down)
            yield save(figure, folder, name + end, caption)


def draw_curves(table: MergingTable, found: Sequence[Curve], folder: Path) -> Drawn:
    """A panel with the averages of all methods, and one for each method with its tasks."""
    count = 1 + len(found)
    columns, width = columns_for(count)
    with drawing(width, 0.4 + 0.14 * -(-len(table.plan.tasks) // 5) + 2.1 * -(-count // columns)) as figure:
        first, *others = panels(figure, count, columns, sharex=True)
        for index, curve in enumerate(found):
            _line(first, curve, [_value(score) for score in curve.averages(table)], index, label=short(curve.label, NAME), lw=1.3)
        _references_across(first, table)
        _legend_above(first)
        for axes, curve in zip(others, found, strict=True):
            for index, task in enumerate(table.plan.tasks):
                _line(axes, curve, [_value(table.score(point, task)) for point in curve.points], index, label=short(task, 18), lw=0.8)
            axes.set(title=short(curve.label, NAME), ylim=(0, 101))
        for axes in (first, *others):
            axes.set(xlabel="scaling", ylabel="top-1 accuracy (%)")
        first.set_title("mean over the merged tasks")
        figure.legend(*others[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        caption = f"{table.model}. Accuracy by what the merged task vector is multiplied by: means over the tasks, then each method."
        return save(figure, folder, figure_name("scaling", table.model), caption)


def _legend_above(axes: Axes) -> None:
    """The legend in two columns, in room that is made for it above all lines."""
    rows = -(-len(axes.get_legend_handles_labels()[0]) // 2)
    low, high = axes.get_ylim()
    share = min(0.1 * rows, 0.5)  # of the panel's height
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    axes.set_ylim(low, low + (high - low) / (1 - share))
    axes.legend(loc="upper center", ncols=2, borderaxespad=0.1, handlelength=1.5, columnspacing=1)


def _references_across(axes: Axes, table: MergingTable) -> None:
    """The averages of the base, which is scaling 0, and of the fine-tunes."""
    for encoder in table.encoders:
        if encoder.kind != MERGE and (score := table.average(encoder)) is not None:
            dashes, label = REFERENCES[encoder.kind]
            axes.axhline(score.value, ls=dashes, color=GREY, lw=0.8, label=label.partition(",")[0])


def _line(axes: Axes, curve: Curve, values: Sequence[float], index: int, label: str, lw: float) -> None:
    colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    axes.plot(curve.scalings, values, color=colour, marker=marker, ms=3, lw=lw, mec="white", mew=0.3, label=label)
