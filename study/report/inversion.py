"""The sections with a study's inversion: retrieval, zero-shot classification, dynamics, similarities, cost, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.collected import Collected, MisalignmentRow, RetrievalRow
from study.inversion_comparison import ComparedScore
from study.inversion_results import Curve, Method, ScoreTable, measure_of, method_of
from study.published_inversion import NATIVE
from study.report.document import Column, Line, Table, Traced, Value

SETTING = (Column("inversion"), Column("R", "d"), Column("steps", "d"), Column("seed", "d"))


def score_matrix(table: ScoreTable) -> Table:
    """Data sets by methods, every number with its cells, and what the inverted and the projected features gain; last the means."""
    gains = [method for method in table.methods if method.name != NATIVE and method.fuse is None]
    columns = (
        Column("data set"),
        *(Column(table.label(method), ".1f") for method in table.methods),
        *(Column(f"{table.label(method)} − native", "+.1f") for method in gains),
    )
    rows = [_matrix_row(table, task, gains) for task in table.tasks]
    if len(table.common) > 1:
        means = [table.mean(method) for method in table.methods]
        name = f"mean of {len(table.common)}"
        rows.append(Line((name, *(mean.value if mean else None for mean in means), *(table.gain(method) for method in gains))))
    caption = f"{table.model}, {table.experiment}: {measure_of(table)} in %."
    return Table(columns, rows, caption=caption)


def _matrix_row(table: ScoreTable, task: str, gains: Sequence[Method]) -> Line:
    scores = [table.score(task, method) for method in table.methods]
    traced = (Traced(score.value, score.cells) if score else None for score in scores)
    return Line((task, *traced, *(table.gain(method, task) for method in gains)))


def retrieval_list(collected: Collected) -> Table:
    """Every retrieval with all its scores, for the CSV."""
    names = tuple(dict.fromkeys(name for row in collected.retrievals for name in row["scores"]))
    columns = (
        *(Column("model"), Column("data set"), Column("query"), Column("gallery"), Column("method"), *SETTING),
        *(Column("fuse", "g"), Column("dropped"), *(Column(name, ".2f") for name in names)),
        *(Column("queries", "d"), Column("gallery items", "d"), Column("without positives"), Column("seconds", ".3g")),
    )
    return Table(columns, [_retrieval(row, names) for row in collected.retrievals], "retrieval")


def _retrieval(row: RetrievalRow, names: Sequence[str]) -> Line:
    dropped = " ".join(map(str, row["drop"] or ()))
    unscored = " ".join(f"{protocol or 'all'}:{count}" for protocol, count in (row["without_positives"] or {}).items() if count)
    return Line(
        (
            *(row["model"], row["task"], row["query"], row["gallery"], method_of(row).name, *_setting(row["inversion"])),
            *(row["fuse"], dropped, *(row["scores"].get(name) for name in names)),
            *(row["n_queries"], row["n_gallery"], unscored, row["seconds"]),
        ),
        (row["cell"],),
    )


def _setting(inversion: Mapping[str, Any] | None) -> tuple[Value, ...]:
    """The columns ``SETTING``."""
    return tuple((inversion or {}).get(name) for name in ("kind", "num_pseudo_tokens", "steps", "seed"))


def inverted_zero_shot_list(collected: Collected) -> Table:
    """Every zero-shot classification with inverted features, for the CSV."""
    columns = (Column("model"), Column("data set"), *SETTING, Column("top-1", ".4f"), Column("images", "d"), Column("seconds", ".3g"))
    rows = [
        Line((row["model"], row["task"], *_setting(row["inversion"]), row["top1"], row["n_images"], row["seconds"]), (row["cell"],))
        for row in collected.inverted_zero_shot
    ]
    return Table(columns, rows, "inverted_zero_shot")


def peaks_table(curves: Sequence[Curve]) -> Table:
    """The best and the last step of every curve beside the native mAP."""
    columns = (
        *(Column("model"), Column("data set"), Column("inversion"), Column("R", "d"), Column("seed", "d"), Column("native", ".1f")),
        *(
            Column("best mAP", ".1f"),
            Column("at step", "d"),
            Column("last mAP", ".1f"),
            Column("last step", "d"),
            Column("last loss", ".3f"),
        ),
    )
    rows = []
    for of in curves:
        best, last = (of.scores[of.peak], of.steps[of.peak]), (of.scores[-1], of.steps[-1], of.losses[-1])
        rows.append(Line((of.model, of.task, of.method.name, of.method.tokens, of.seed, of.native, *best, *last), of.cells))
    return Table(columns, rows, "dynamics_peaks", "mAP in %, of inverted queries after the best and after the last of the recorded steps.")


def curves_list(curves: Sequence[Curve]) -> Table:
    """Every recorded step of every inversion, for the CSV."""
    columns = (
        *(Column("model"), Column("data set"), Column("inversion"), Column("R", "d"), Column("seed", "d")),
        *(Column("step", "d"), Column("loss", ".4f"), Column("mAP", ".2f")),
    )
    rows = [
        Line((of.model, of.task, of.method.name, of.method.tokens, of.seed, step, loss, score), of.cells)
        for of in curves
        for step, loss, score in zip(of.steps, of.losses, of.scores, strict=True)
    ]
    return Table(columns, rows, "dynamics")


def overlaps_table(collected: Collected) -> Table:
    """How far pairs of the same and of different classes coincide, and how far apart the means of two sides are."""
    sides = tuple(dict.fromkeys(side for row in collected.misalignments for side in row["overlap"]))
    gaps = tuple(dict.fromkeys(side for row in collected.misalignments for side in row["gaps"]))
    columns = (
        *(Column("model"), Column("data set"), *SETTING),
        *(Column(f"overlap {_words(side)}", ".3f") for side in sides),
        *(Column(f"gap {_words(side)}", ".3f") for side in gaps),
    )
    rows = [_overlaps(row, sides, gaps) for row in collected.misalignments]
    caption = (
        "Overlap: of the histograms of cosines of pairs of the same class and of different classes, 1 where they are alike. "
        "Gap: distance of the means of the two sides."
    )
    return Table(columns, rows, "similarities", caption)


def _overlaps(row: MisalignmentRow, sides: Sequence[str], gaps: Sequence[str]) -> Line:
    numbers = (*(row["overlap"].get(side) for side in sides), *(row["gaps"].get(side) for side in gaps))
    return Line((row["model"], row["task"], *_setting(row["inversion"]), *numbers), (row["cell"],))


def _words(side: str) -> str:
    return side.replace("_", "–")


def inversions_table(collected: Collected) -> Table:
    """What every inversion took and how close it came."""
    columns = (
        *(Column("model"), Column("data set"), Column("side"), *SETTING, Column("items", "d"), Column("loss", ".3f")),
        *(Column("seconds", ".3g"), Column("s an item", ".2g")),
    )
    rows = []
    for row in collected.inversions:
        values = (row["n_items"], row["losses"][-1], row["seconds"], row["seconds_per_item"])
        rows.append(Line((row["model"], row["task"], row["side"], *_setting(row["inversion"]), *values), (row["cell"],)))
    caption = "Loss: 1 − cosine to the target after the last step, mean over the items. A native feature costs one pass of the encoder."
    return Table(columns, rows, "inversions", caption)


def published_scores_table(compared: Sequence[ComparedScore]) -> Table:
    """The published numbers beside the study's own; differences are ours minus theirs, row by row."""
    columns = (
        *(Column("experiment"), Column("data sets"), Column("method"), Column("model"), Column("published", ".1f"), Column("ours", ".1f")),
        *(Column("difference", "+.1f"), Column("source"), Column("remark")),
    )
    rows = [
        Line(
            (of.experiment, of.what, of.method, of.model, of.published, of.ours, of.difference, of.source, of.note),
            of.cells,
        )
        for of in compared
    ]
    caption = (
        "In %. Differences are ours minus the published number. Published numbers of single data sets come from two sources: "
        "a published OTI minus a published native one is not what inversion gained."
    )
    return Table(columns, rows, "published_inversion", caption)
