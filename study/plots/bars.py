"""Kendall's tau of every measure as bars with bootstrap intervals, the best on top, a panel for each model and tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common.figures import BLACK, GREY, SKY, VERMILLION, Drawn, columns_for, drawing, pages, panels, save, short
from study.analysis import Analysis
from study.comparison import Compared
from study.plots.style import title_of

TALLEST = 9.0  # inches
BAR = 0.13  # inches for each


def draw_tau(analysis: Analysis, folder: Path) -> list[Drawn]:
    """tau of each measure with the gain, over the tasks; measures without a number are named below."""
    found = [(pair, analysis.taus(*pair)) for pair in analysis.combinations]
    known = [(pair, rows) for pair, rows in found if any(row.agreement is not None for row in rows)]
    if not known:
        return []
    columns, width = columns_for(len(known))
    height = 0.45 + BAR * max(len(rows) for _, rows in known)
    drawn = []
    for end, some in pages(known, columns * max(1, int(TALLEST / height))):
        with drawing(width, 0.45 + height * -(-len(some) // columns)) as figure:
            for axes, (pair, rows) in zip(panels(figure, len(some), columns), some, strict=True):
                _draw(axes, rows, analysis.predictor)
                axes.set_title(f"{title_of(*pair)}, n = {max(row.n for row in rows)}", fontsize=7)
            figure.legend(handles=_key(analysis), loc="outside lower center", ncols=3 if width > 4 else 1)
            drawn.append(save(figure, folder, "tau" + end, _caption(analysis)))
    return drawn


def _draw(axes: Axes, rows: Sequence[Compared], predictor: str) -> None:
    ordered = sorted(rows, key=lambda row: (row.agreement is None, -row.agreement.tau if row.agreement else 0.0, row.measure))
    for at, row in enumerate(ordered):
        if row.agreement is None:
            axes.text(0, at, " not defined", fontsize=6, color=GREY, va="center")
            continue
        tau, interval = row.agreement.tau, row.agreement.tau_interval
        axes.barh(
            at,
            tau,
            height=0.7,
            color=VERMILLION if row.measure == predictor else SKY,
            hatch="////" if row.measure == predictor else None,
            ec="white",
            lw=0,
        )
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [at, at], color=BLACK, lw=0.8, marker="|", ms=3, mew=0.8)
        axes.plot(row.agreement.weighted_tau, at, "D", ms=2.6, mfc="white", mec=BLACK, mew=0.6, zorder=3)
    axes.axvline(0, color=BLACK, lw=0.6)
    axes.set(xlim=(-1.05, 1.05), ylim=(len(rows) - 0.4, -0.6), xticks=[-1, -0.5, 0, 0.5, 1], xlabel=r"Kendall $\tau$")
    axes.set_yticks(range(len(ordered)), [short(row.measure, 22) for row in ordered], fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _key(analysis: Analysis) -> list[Patch | Line2D]:
    return [
        Patch(fc=VERMILLION, hatch="////", ec="white", lw=0, label=f"{analysis.predictor}, the predictor"),
        Line2D([], [], color=BLACK, lw=0.8, marker="|", ms=4, label=f"{100 * analysis.level:g} % bootstrap interval"),
        Line2D([], [], ls="none", marker="D", ms=3, mfc="white", mec=BLACK, mew=0.6, label=r"weighted $\tau$"),
    ]


def _caption(analysis: Analysis) -> str:
    return (
        f"Kendall's tau between each measure and the gain over zero-shot error, over the tasks, with {100 * analysis.level:g} % percentile "
        "bootstrap intervals. An interval of [1, 1] or [-1, -1] is no certainty: resampling a perfect order gives perfect orders only."
    )
