"""The figures of a study's inversion, drawn by inversion.figures: methods side by side, loss and mAP against steps, histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.figures import Drawn
from inversion.figures import Dynamics, Score, draw_comparison, draw_dynamics, draw_similarities
from inversion.histograms import EDGES, Histogram, Similarities
from study.cells import short
from study.collected import Collected, MisalignmentRow
from study.inversion_results import Curve, curves, measure_of, score_tables
from study.plan import Plan
from study.published_inversion import ZERO_SHOT


def draw_inversion(collected: Collected, plan: Plan, folder: Path) -> list[Drawn]:
    """Every figure that there are numbers for."""
    return [*_comparisons(collected, plan, folder), *_dynamics(collected, plan, folder), *_histograms(collected, folder)]


def _comparisons(collected: Collected, plan: Plan, folder: Path) -> Iterator[Drawn]:
    """Bars of every data set, of each experiment and model."""
    for table in score_tables(collected, plan):
        rows = [Score(task, table.label(method), score.value / 100) for (task, method), score in table.scores.items()]
        rows.sort(key=lambda row: (table.tasks.index(row.dataset), [table.label(of) for of in table.methods].index(row.method)))
        kind = ZERO_SHOT if table.experiment == ZERO_SHOT else f"retrieval_{table.experiment.split()[0]}"
        for drawn in draw_comparison(rows, folder, measure_of(table), f"{kind}_{short(table.model)}"):
            yield _of(table.model, drawn)


def _dynamics(collected: Collected, plan: Plan, folder: Path) -> Iterator[Drawn]:
    """A figure of each model and data set, with a line for each number of pseudo-tokens."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves(collected, plan):
        groups.setdefault((curve.model, curve.task), []).append(curve)
    for (model, task), group in groups.items():
        rows = [
            Dynamics(_name(of), of.method.tokens, step, loss, score / 100)
            for of in group
            for step, loss, score in zip(of.steps, of.losses, of.scores, strict=True)
        ]
        native = {"native": group[0].native / 100} if group[0].native is not None else {}
        losses = {_name(of): of.curve for of in group if of.curve}
        drawn = draw_dynamics(rows, losses, native, folder, name=f"dynamics_{short(model)}_{short(task)}")
        yield _of(f"{model}, {task}", drawn)


def _of(what: str, drawn: Drawn) -> Drawn:
    """The figure, with what it is of before its caption."""
    return replace(drawn, caption=f"{what}. {drawn.caption}")


def _name(curve: Curve) -> str:
    """What tells it from the others of a figure."""
    return f"R{curve.method.tokens} seed {curve.seed}"


def _histograms(collected: Collected, folder: Path) -> Iterator[Drawn]:
    for row in collected.misalignments:
        of = row["inversion"]
        title = f"{row['model']}, {row['task']}, R = {of['num_pseudo_tokens']}, {of['steps']} steps"
        name = f"similarities_{short(row['model'])}_{short(row['task'])}_r{of['num_pseudo_tokens']}_seed{of['seed']}"
        yield _of(title, draw_similarities(similarities_of(row), folder, title, name))


def similarities_of(row: MisalignmentRow) -> Similarities:
    """The histograms of a row with the empty ends that JSON goes without."""
    return Similarities({name: _histogram(of) for name, of in row["histograms"].items()}, row["gaps"])


def _histogram(of: Mapping[str, Any]) -> Histogram:
    counts = np.zeros(len(EDGES) - 1, dtype=np.int64)
    first = int(np.abs(EDGES - of["edges"][0]).argmin())
    counts[first : first + len(of["counts"])] = of["counts"]
    return Histogram(counts, of["mean"], of["std"])
