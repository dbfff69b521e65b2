"""The tables of a study's merging: encoders by tasks, fine-tunes, scalings, robustness, cost, published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from study.collected import Collected
from study.merging_comparison import ComparedRow
from study.merging_results import BASE, OWN, TRANSDUCTIVE, Curve, Encoder, MergingTable, Score, Tested, shown, tested
from study.plan_merging import clean, corruption_of
from study.published_merging import ALL_TASKS
from study.report.document import Column, Line, Table, Traced

NUMBERS = ("seed", "top1", "n_correct", "n_images", "loss", "seconds")
SIGNS = "* adapted to the test images without their labels (transductive). † an encoder for each task instead of one for all."


def traced(score: Score | None) -> Traced | None:
    """A number with its cells."""
    return Traced(score.value, score.cells) if score else None


def methods_table(table: MergingTable) -> Table:
    """The base, every task's own fine-tune and every merge on all tasks, with the averages."""
    merged, unseen = list(table.plan.tasks), list(table.plan.eval_tasks)
    tasks = [task for task in (*merged, *unseen) if any(table.score(encoder, task) for encoder in table.encoders)]
    columns = (
        *(Column("encoder"), *(Column(task if task in merged else f"{task} (unseen)", ".1f") for task in tasks)),
        *(Column("average of the merged", ".1f"), Column("average of the unseen", ".1f"), Column("normalised", ".1f")),
    )
    rows = []
    for encoder in table.encoders:
        averages = table.average(encoder), table.average(encoder, unseen) if unseen else None
        numbers = (*(table.score(encoder, task) for task in tasks), *averages)
        normalised = None if encoder.kind == OWN else table.normalised(encoder)
        rows.append(Line((table.name(encoder), *map(traced, numbers), normalised)))
    caption = f"{table.model}: top-1 accuracy in %. {SIGNS} Normalised: in % of the fine-tune's own, mean over the merged tasks."
    return Table(columns, rows, caption=caption)


def fine_tunes_table(table: MergingTable) -> Table:
    """The base and every fine-tune on every task."""
    tasks = [*table.plan.tasks, *table.plan.eval_tasks]
    columns = (Column("tuned on"), *(Column(task, ".1f") for task in tasks), Column("average of the merged", ".1f"))
    encoders = [*(encoder for encoder in table.encoders if encoder.kind == BASE), *table.fine_tunes]
    rows = [Line((of.label, *(traced(table.score(of, task)) for task in tasks), traced(table.average(of)))) for of in encoders]
    return Table(columns, rows, caption=f"{table.model}: top-1 accuracy of the single encoders on every task, in %.")


def robustness_table(table: MergingTable) -> Table:
    """The average of every encoder on clean images and with each corruption."""
    corruptions = table.plan.corruptions
    columns = (Column("encoder"), Column("clean", ".1f"), *(Column(name, ".1f") for name in corruptions), Column("mean change", "+.1f"))
    rows = []
    for encoder in table.encoders:
        scores = [table.average(encoder, corruption=name) for name in (None, *corruptions)]
        rows.append(Line((table.name(encoder), *map(traced, scores), mean_change(scores))))
    caption = (
        f"{table.model}: top-1 accuracy in %, mean over the {len(table.plan.tasks)} merged tasks, by the corruption of the test images; * "
        "adapted to the corrupted images. Mean change: of the corrupted against the clean images, in points."
    )
    return Table(columns, rows, caption=caption)


def mean_change(scores: Sequence[Score | None]) -> float | None:
    """The mean of the others minus the first; None unless all are known."""
    known = [score.value for score in scores if score is not None]
    return sum(known[1:]) / (len(known) - 1) - known[0] if len(known) == len(scores) > 1 else None


def robustness_by_task(table: MergingTable) -> Table:
    """Every encoder on every task with each corruption."""
    tasks = [*table.plan.tasks, *table.plan.eval_tasks]
    columns = (Column("images"), Column("encoder"), *(Column(task, ".1f") for task in tasks))
    rows = [
        Line((corruption, table.name(encoder), *(traced(table.score(encoder, task, corruption)) for task in tasks)))
        for corruption in table.plan.corruptions
        for encoder in table.encoders
    ]
    return Table(columns, rows, caption=f"{table.model}: top-1 accuracy in % on the corrupted test images.")


def scalings_table(tables: Sequence[MergingTable], curves: Mapping[str, Sequence[Curve]]) -> Table:
    """The averages by scaling, a line for each method."""
    scalings = sorted({scaling for of in curves.values() for curve in of for scaling in curve.scalings})
    columns = (Column("model"), Column("merge"), *(Column(shown(scaling), ".1f") for scaling in scalings), Column("best at"))
    rows = []
    for table in tables:
        for curve in curves[table.model]:
            found = dict(zip(curve.scalings, curve.averages(table), strict=True))
            best = curve.best(table)
            numbers = (traced(found.get(scaling)) for scaling in scalings)
            rows.append(Line((table.model, curve.label, *numbers, shown(best[0]) if best else None)))
    return Table(columns, rows, caption="Average over the merged tasks in %, by what the merged task vector is multiplied by.")


def merges_table(tables: Sequence[MergingTable]) -> Table:
    """What every merge was made from and took."""
    columns = (
        *(Column("model"), Column("merge"), Column("method"), Column("options"), Column("made with"), Column("images")),
        *(Column("parameters", ",d"), Column("seconds", ".3g")),
    )
    rows = []
    for table in tables:
        for encoder, row in table.rows.items():
            images = f"corrupted: {encoder.adapt}" if encoder.adapt else ""
            facts = (options_text(encoder), table.need(encoder), images, row["parameters"], row["seconds"])
            rows.append(Line((table.model, encoder.label, encoder.method, *facts), (row["cell"],)))
    return Table(columns, rows, "merges", "Every merge, with all options that its method reads. Seconds: of merging, without evaluation.")


def options_text(encoder: Encoder) -> str:
    """``density 0.2, scope model``: the options that are not left open."""
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in encoder.options if value is not None)


def published_table(rows: Sequence[ComparedRow]) -> Table:
    """The printed averages beside the study's, and by how much each task differs."""
    tasks = list(dict.fromkeys(name for row in rows for name in row.published.accuracies if name not in row.averages))
    columns = (
        *(Column("model"), Column("experiment"), Column("row"), Column("images"), Column("average of"), Column("published", ".1f")),
        *(Column("ours", ".1f"), Column("difference", "+.1f"), *(Column(f"Δ {task}", "+.1f") for task in tasks)),
        Column("remark"),
    )
    lines = [_published(row, name, tasks) for row in rows for name in row.averages]
    caption = "Averages in % of top-1 accuracy; differences, and Δ of single tasks, are ours minus the published number, in points."
    return Table(columns, lines, caption=caption)


def _published(row: ComparedRow, average: str, tasks: Sequence[str]) -> Line:
    of, first = row.published, average == row.averages[0]  # of two averages the first has what is to be said of each task
    by_task = [row.difference(task) if first else None for task in tasks]
    traces = (None if value is None else Traced(value, row.ours[task].cells) for task, value in zip(tasks, by_task, strict=True))
    over = "" if average == ALL_TASKS else average.removeprefix("average of ")
    numbers = (of.accuracies[average], traced(row.ours.get(average)), row.difference(average))
    return Line((row.model, of.experiment, of.row, row.images, over, *numbers, *traces, row.note))


def published_list(rows: Iterable[ComparedRow]) -> Table:
    """Every printed number, for the CSV."""
    columns = ("model", "experiment", "row", "images", "task", "published", "ours", "difference", "encoder", "remark")
    lines = []
    for row in rows:
        names = (row.model, row.published.experiment, row.published.row, row.images)
        for task, number in row.published.accuracies.items():
            ours = row.ours.get(task)
            found = (ours.value if ours else None, row.difference(task), row.encoder.label if row.encoder else "")
            lines.append(Line((*names, task, number, *found, row.note), ours.cells if ours else ()))
    return Table(tuple(map(Column, columns)), lines, "published_merging")


def merging_list(collected: Collected, tables: Sequence[MergingTable]) -> Table:
    """Every encoder on every data set, for the CSV: a row for each cell."""
    names = ("model", "what", "method", "label", "options", "adapt", "transductive", "task", "data set", "seen", "corruption")
    rows = [_tested(of, table) for table in tables for of in tested(collected, table.plan, table.model)]
    return Table(tuple(map(Column, (*names, *NUMBERS, "parameters"))), rows, "merging")


def _tested(of: Tested, table: MergingTable) -> Line:
    encoder, merge, name = of.encoder, table.rows.get(of.encoder), table.plan.names[clean(of.data_set)]
    transductive = int(table.need(encoder) == TRANSDUCTIVE)
    who = (table.model, encoder.kind, encoder.method, encoder.label, options_text(encoder), encoder.adapt, transductive)
    where = (name, of.data_set, int(name in table.plan.tasks), corruption_of(of.data_set))
    row: Mapping[str, Any] = dict(of.row)
    correct = row.get("n_correct", round(row["top1"] * row["n_images"]) if row["n_images"] else None)  # zero-shot cells say the share alone
    numbers = (row.get("seed"), row["top1"], correct, row["n_images"], row.get("loss"), row["seconds"])
    return Line((*who, *where, *numbers, merge["parameters"] if merge else None), (row["cell"],))
