"""The figures of modality inversion: histograms of similarities, loss and mAP against steps, and methods side by side.

Each figure is written as PDF and PNG; scores are fractions and drawn as percentages, as the papers print them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from common.figures import BLACK, GREY, PAGE, PALE, PALETTE, Drawn, density_curve, drawing, padded, pages, panels, remark, save, short
from inversion.histograms import ALL, DIFFERENT, EDGES, SAME, SAME_ITEM, Histogram, Similarities

WORDS = {"image": "image", "text": "text", "oti": "OTI feature", "ovi": "OVI feature"}
RELATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    SAME: ("same class", {"color": PALETTE[0], "ls": "-"}),
    DIFFERENT: ("different classes", {"color": PALETTE[1], "ls": (0, (4, 1.2))}),
    ALL: ("all pairs", {"color": GREY, "ls": "-"}),
    SAME_ITEM: ("its own item", {"color": PALETTE[2], "ls": (0, (1, 1))}),
}
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")
COLOURS, HATCHES = (PALE, *PALETTE[:6]), (None, None, "////", "....", "xxxx", "\\\\", "----")  # of bars, in the order of methods
SETS = 5  # data sets in a row of bars
ROWS = 4  # of bars to a figure


class Dynamics(NamedTuple):
    """What a snapshot of an experiment gave: its loss and, where retrieval was run, its score (a fraction)."""

    exp_name: str
    num_pseudo_tokens: int
    step: int
    loss: float | None
    score: float | None


class Score(NamedTuple):
    """What a method gave on a data set, a fraction."""

    dataset: str
    method: str
    score: float


def draw_similarities(similarities: Similarities, folder: Path, title: str = "", name: str = "similarities") -> Drawn:
    """A panel for each two sides (image-image, image-text, OTI-image, ...) under one another, with the overlap in its title.

    A UserError when there is no pair.
    """
    kinds = _kinds(similarities)
    if not kinds:
        raise UserError("There are no two items whose similarity could be drawn.")
    with drawing(0.72 * PAGE, 0.75 + 0.95 * len(kinds)) as figure:
        grid = panels(figure, len(kinds), 1, sharex=True)
        for axes, (kind, relations) in zip(grid, kinds.items(), strict=True):
            for relation in relations:
                of = similarities.histograms[f"{kind}_{relation}"]
                density_curve(axes, *_binned(of), of.mean, **RELATIONS[relation][1])
            axes.set_title(_overlap(similarities, kind))
            axes.set(ylim=(0, _top(similarities, kind, relations)), yticks=[])
            axes.spines["left"].set_visible(False)
        grid[-1].set_xlabel("cosine")
        figure.supylabel("density", fontsize=7.5)
        figure.suptitle(short(title, 70), fontsize=8)
        _key(figure, [relation for relation in RELATIONS if any(relation in some for some in kinds.values())])
        return save(figure, folder, name, "Cosines by kind of pair; every curve has area 1, dots mark the means. " + _gaps(similarities))


def _kinds(similarities: Similarities) -> dict[str, list[str]]:
    """The relations that there are histograms of, by the two sides A_B, in the order in which they were computed."""
    kinds: dict[str, list[str]] = {}
    for name in similarities.histograms:
        first, second, relation = name.split("_", 2)
        kinds.setdefault(f"{first}_{second}", []).append(relation)
    return kinds


def _binned(of: Histogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges and counts, up to five bins in one where pairs are few, lest the outline be ragged; overlaps are those of all bins.

    They are no wider than 3.5 std / n^(1/3), by D. W. Scott, "On optimal and data-based histograms" (Biometrika, 1979).
    """
    widest = 3.5 * of.std / of.n ** (1 / 3) / (EDGES[1] - EDGES[0])
    together = max((number for number in (1, 2, 4, 5) if number <= widest), default=1)
    return EDGES[::together], of.counts.reshape(-1, together).sum(axis=1)


def _top(similarities: Similarities, kind: str, relations: Sequence[str]) -> float:
    """The highest density; that of inversions to their own items counts in part, since it is a spike where the loss is small."""
    highest = {}
    for relation in relations:
        edges, counts = _binned(similarities.histograms[f"{kind}_{relation}"])
        highest[relation] = float(counts.max() / counts.sum() / (edges[1] - edges[0]))
    others = [value for relation, value in highest.items() if relation != SAME_ITEM]
    return 1.06 * min(max(highest.values()), 2.5 * max(others, default=np.inf))


def _overlap(similarities: Similarities, kind: str) -> str:
    first, second = kind.split("_")
    words = f"{WORDS[first]} to {WORDS[second]}"
    return f"{words}: overlap {similarities.overlap(kind):.3f}" if kind in similarities.sides else words


def _key(figure: Figure, relations: Sequence[str]) -> None:
    handles = [Line2D([], [], lw=1.1, label=RELATIONS[of][0], **RELATIONS[of][1]) for of in relations]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=2.6)


def _gaps(similarities: Similarities) -> str:
    gaps = [f"{' to '.join(WORDS[of] for of in kind.split('_'))} {value:.3f}" for kind, value in similarities.gaps.items()]
    return f"Distances of the means: {', '.join(gaps)}." if gaps else ""


def draw_dynamics(
    rows: Sequence[Dynamics],
    curves: Mapping[str, ArrayLike],
    references: Mapping[str, float],
    folder: Path,
    measure: str = "mAP",
    name: str = "dynamics",
) -> Drawn:
    """Loss (left) and score (right) against steps, a line for each experiment; after Mistretta et al.'s figure of the dynamics.

    ``curves`` gives the mean loss before each step by experiment (PseudoTokens.curve, [steps]); where there is none, the losses of
    ``rows`` are joined. ``references`` are horizontal lines: {"native (intra-modal)": 0.246}. Steps are on a logarithmic scale,
    since most happens in the first; of step 0 only the loss is known, and it is left out.
    """
    experiments = sorted({(row.num_pseudo_tokens, row.exp_name) for row in rows})
    with drawing(PAGE, 2.65) as figure:
        losses, scores = panels(figure, 2, 2, sharex=True)
        for index, (_, experiment) in enumerate(experiments):
            own = sorted((row for row in rows if row.exp_name == experiment), key=lambda row: row.step)
            _draw_losses(losses, own, curves.get(experiment), index)
            _draw_scores(scores, own, index)
        _references(scores, references)
        if not any(row.score is not None for row in rows):
            remark(scores, "no retrieval was run")
        losses.set(xscale="log", ylabel="loss, 1 - cosine", ylim=(0, None))
        scores.set(ylabel=f"{measure} (%)", ylim=_limits(rows, references))
        for axes in (losses, scores):
            _draw_steps(axes)
        handles = [Line2D([], [], label=_label(*of, experiments), **_line(index)) for index, of in enumerate(experiments)]
        handles += [line for line in scores.lines if line.get_label() in references]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(4, len(handles))), handlelength=3)
        return save(figure, folder, name, f"Loss and {measure} against the steps of inversion, by the number R of pseudo-tokens.")


def _draw_steps(axes: Axes) -> None:
    axes.set_xlabel("steps")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(color=PALE, lw=0.4)
    axes.set_axisbelow(True)


def _line(index: int) -> dict[str, Any]:
    """The line of an experiment; black is for the references."""
    style = {"color": PALETTE[index % 6], "ls": LINES[index % len(LINES)], "marker": MARKERS[index % len(MARKERS)]}
    return style | {"lw": 1.1, "ms": 3.2, "mec": "white", "mew": 0.3}


def _label(num_pseudo_tokens: int, experiment: str, experiments: Sequence[tuple[int, str]]) -> str:
    """R alone where it tells the experiments apart."""
    alone = len({of for of, _ in experiments}) == len(experiments)
    return f"R = {num_pseudo_tokens}" if alone else f"R = {num_pseudo_tokens}, {short(experiment, 24)}"


def _draw_losses(axes: Axes, rows: Sequence[Dynamics], curve: ArrayLike | None, index: int) -> None:
    """The curve after each step, without markers; the losses of the snapshots as markers on it."""
    known = [(row.step, row.loss) for row in rows if row.loss is not None and row.step > 0]
    if curve is not None:
        after = np.asarray(curve, np.float64)[1:]  # the loss before step t + 1 is that after t steps
        axes.plot(np.arange(1, len(after) + 1), after, **_line(index) | {"marker": ""})
    if known:
        axes.plot(*np.asarray(known).T, **_line(index) | ({"ls": "none"} if curve is not None else {}))


def _draw_scores(axes: Axes, rows: Sequence[Dynamics], index: int) -> None:
    known = [(row.step, 100 * row.score) for row in rows if row.score is not None and row.step > 0]
    if known:
        axes.plot(*np.asarray(known).T, **_line(index))


def _references(axes: Axes, references: Mapping[str, float]) -> None:
    for index, (label, value) in enumerate(references.items()):
        axes.axhline(100 * value, color=BLACK, lw=0.9, ls=("--", ":", "-.")[index % 3], label=label)


def _limits(rows: Sequence[Dynamics], references: Mapping[str, float]) -> tuple[float, float]:
    values = [100 * row.score for row in rows if row.score is not None] + [100 * value for value in references.values()]
    return padded(values) if values else (0.0, 100.0)


def draw_comparison(rows: Sequence[Score], folder: Path, measure: str = "mAP", name: str = "comparison") -> list[Drawn]:
    """Bars of all methods (native, inverted, PCA, IsoCLIP, ...) for each data set, both in the order of the rows, with their numbers."""
    datasets, methods = list(dict.fromkeys(row.dataset for row in rows)), list(dict.fromkeys(row.method for row in rows))
    scores = {(row.dataset, row.method): 100 * row.score for row in rows}
    drawn = []
    for end, some in pages(datasets, SETS * ROWS):
        lines = [some[start : start + SETS] for start in range(0, len(some), SETS)]
        width = PAGE if len(some) * len(methods) > 8 else 0.62 * PAGE
        with drawing(width, 0.45 + 1.55 * len(lines)) as figure:
            for axes, shown in zip(panels(figure, len(lines), 1, sharey=True), lines, strict=True):
                _draw_bars(axes, shown, methods, scores, len(lines[0]))
                axes.set_ylabel(f"{measure} (%)")
            handles = figure.axes[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=min(len(methods), 5 if width == PAGE else 4), handlelength=1.4)
            drawn.append(save(figure, folder, name + end, f"{measure} by data set and method."))
    return drawn


def _draw_bars(axes: Axes, datasets: Sequence[str], methods: Sequence[str], scores: Mapping[tuple[str, str], float], places: int) -> None:
    """A group for each data set, in as many places as the first row has; a method without a number leaves its place empty."""
    width = 0.84 / len(methods)
    size = 6.0 if len(methods) * places <= 20 else 5.0
    for number, method in enumerate(methods):
        colour, hatch = COLOURS[number % len(COLOURS)], HATCHES[number % len(HATCHES)]
        at = np.arange(len(datasets)) + (number - (len(methods) - 1) / 2) * width
        heights = np.asarray([scores.get((dataset, method), np.nan) for dataset in datasets])
        bars = axes.bar(at, heights, width * 0.92, color=colour, hatch=hatch, ec="white", lw=0, label=short(method))
        axes.bar_label(bars, ["" if np.isnan(height) else f"{height:.1f}" for height in heights], fontsize=size, padding=1)
    axes.set_xticks(range(len(datasets)), [short(dataset, 18) for dataset in datasets])
    axes.set(xlim=(-0.5, places - 0.5), ylim=(0, 1.12 * max(1.0, *scores.values())))
    axes.tick_params(axis="x", length=0)
