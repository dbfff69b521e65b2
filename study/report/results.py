"""The sections with a study's results: gains, lines, agreement, forgetting, published numbers, scores, costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from study.agreement import Bootstrap
from study.analysis import Analysis, StudyFit
from study.collected import Collected
from study.comparison import Compared
from study.outcomes import ZERO_SHOT
from study.prediction import CHANGE, GAIN, WORDS
from study.published import compare_published
from study.report.document import Column, Line, Table, Traced
from study.report.sources import Sources

WHO = (Column("model"), Column("tuning"))
SHORT = {GAIN: "gain", "accuracy_after": "accuracy after", CHANGE: "change elsewhere"}
AGREEMENT = (
    *(Column("measure"), Column("n", "d"), Column("tau", ".2f"), Column("low", ".2f"), Column("high", ".2f"), Column("p", ".2g")),
    *(Column("weighted tau", ".2f"), Column("low", ".2f"), Column("high", ".2f"), Column("remark")),
)


def gains_table(analysis: Analysis) -> Table:
    """What fine-tuning gained, with the settings that validation chose."""
    columns = (
        *(*WHO, Column("task"), Column("zero-shot", ".3f"), Column("after", ".3f"), Column("± seeds", ".3f"), Column("gain", ".3f")),
        *(Column("change elsewhere", "+.3f"), Column("validation", ".3f"), Column("seeds", "d"), Column("chosen setting")),
    )
    rows = []
    for of in analysis.gains:
        validations = [run.validation for run in of.runs if run.validation is not None]
        mean = float(np.mean(validations)) if validations else None
        numbers = (of.zero_shot_accuracy, of.accuracy_after, of.accuracy_std, of.gain, of.mean_change_elsewhere, mean, len(of.runs))
        rows.append(Line((of.model, of.tuning, of.task, *numbers, " / ".join(of.settings)), of.cells))
    caption = (
        "Accuracy on the test split before and after fine-tuning; the setting was chosen by validation accuracy, never by the test split."
    )
    return Table(columns, rows, "gains", caption)


def fits_table(fits: Sequence[StudyFit], name: str, sources: Sources) -> Table:
    """The lines with their errors, and what must be said about each."""
    columns = (
        *(*WHO, Column("measure"), Column("outcome"), Column("n", "d"), Column("slope", ".3g"), Column("±", ".2g")),
        *(Column("intercept", ".3g"), Column("R²", ".2f"), Column("p", ".2g"), Column("left-out error", ".3f")),
        *(Column("by the mean", ".3f"), Column("remarks")),
    )
    caption = (
        "Lines of least squares over the tasks. Left-out error: mean absolute error on each task of the line through the others; "
        "by the mean: that of the others' average, which needs no measure."
    )
    return Table(columns, [_fit(of, sources) for of in fits], name, caption)


def _fit(of: StudyFit, sources: Sources) -> Line:
    names = (of.model, of.tuning, of.measure, SHORT[of.outcome])
    if of.fit is None:
        return Line((*names, *[None] * 8, of.undefined))
    line, left_out, mean = of.fit.line, of.fit.leave_one_out, of.fit.leave_one_out_of_mean
    errors = (None if left_out is None else left_out.mean_absolute, mean.mean_absolute)
    cells = sources.points([known.key for known in of.fit.known], of.measure, of.outcome)
    numbers = (line.n, line.slope, line.slope_stderr, line.intercept, line.r2, line.p)
    return Line((*names, *numbers, *errors, " ".join(of.fit.warnings)), cells)


def tau_table(analysis: Analysis, outcome: str, sources: Sources) -> Table:
    """Every measure's agreement with an outcome over the tasks, for each model and tuning the best first."""
    rows = []
    for pair in analysis.combinations:
        tasks = [(*pair, of.task) for of in analysis.outcomes if (of.model, of.tuning) == pair]
        for of in sorted(analysis.taus(*pair, outcome), key=_worst_last):
            rows.append(Line((*pair, *_agreement(of)), sources.points(tasks, of.measure, outcome) if of.agreement else ()))
    columns = (*WHO, *AGREEMENT)
    caption = f"Kendall's tau with the {WORDS[outcome]} over the tasks, with {100 * analysis.level:g} % percentile bootstrap intervals."
    return Table(columns, rows, "tau" if outcome == GAIN else "tau_forgetting", caption)


def models_table(analysis: Analysis, sources: Sources) -> Table:
    """Every measure's agreement with an outcome over the models, for each task and tuning."""
    rows = []
    for of in analysis.compared:
        if of.direction == "across models":
            task, tuning = of.group
            points = [(model, tuning, task) for model in analysis.models]
            cells = sources.points(points, of.measure, GAIN) if of.agreement else ()
            rows.append(Line((task, tuning, SHORT[of.outcome], *_agreement(of)), cells))
    columns = (Column("task"), Column("tuning"), Column("outcome"), *AGREEMENT)
    return Table(columns, rows, "tau_models", "Which model to take: Kendall's tau over the models, for each task.")


def _agreement(of: Compared) -> tuple[str | int | float | None, ...]:
    if of.agreement is None:
        return (of.measure, of.n, *[None] * 7, of.undefined)
    agrees = of.agreement
    remark = "" if agrees.tau_p.exact else "p by normal approximation"
    taus = (agrees.tau, *_ends(agrees.tau_interval), agrees.tau_p.value, agrees.weighted_tau, *_ends(agrees.weighted_tau_interval))
    return (of.measure, of.n, *taus, remark)


def _ends(interval: Bootstrap) -> tuple[float | None, float | None]:
    return interval.low, interval.high


def _worst_last(of: Compared) -> tuple[float, str]:
    return (-of.agreement.tau if of.agreement else 2.0), of.measure


def forgetting_tables(analysis: Analysis) -> Iterator[Table]:
    """A matrix for each model and tuning, in points, every number with its cells."""
    for of in analysis.forgetting:
        columns = (Column("trained on"), *(Column(task, "+.1f") for task in of.evaluated_on), Column("mean elsewhere", "+.1f"))
        rows = []
        for task, changes in zip(of.trained_on, of.change, strict=True):
            numbers = [
                Traced(None if np.isnan(value) else 100 * float(value), of.cells.get((task, name), ()))
                for name, value in zip(of.evaluated_on, changes, strict=True)
            ]
            mean = of.mean_change_elsewhere(task)
            rows.append(Line((task, *numbers, None if mean is None else 100 * mean)))
        yield Table(columns, rows, caption=f"{of.model}, {of.tuning}: change of accuracy against zero-shot, in points")


def forgetting_list(analysis: Analysis) -> Table:
    """All matrices as one list, for the CSV: shares, not points."""
    columns = (*WHO, Column("trained on"), Column("evaluated on"), Column("change", "+.4f"))
    rows = [
        Line((of.model, of.tuning, trained, evaluated, float(of.change[row, column])), of.cells.get((trained, evaluated), ()))
        for of in analysis.forgetting
        for row, trained in enumerate(of.trained_on)
        for column, evaluated in enumerate(of.evaluated_on)
        if not np.isnan(of.change[row, column])
    ]
    return Table(columns, rows, "forgetting")


def published_table(analysis: Analysis, key: str, sources: Sources) -> Table:
    """The published numbers beside the study's own."""
    columns = (
        *(Column("quantity"), Column("paper's measure"), Column("measure"), *WHO, Column("paper's model"), Column("published", ".2f")),
        *(Column("lowest", ".2f"), Column("highest", ".2f"), Column("ours", ".2f"), Column("low", ".2f"), Column("high", ".2f")),
        *(Column("difference", "+.2f"), Column("n", "d"), Column("paper's n", "d"), Column("remark")),
    )
    rows = []
    for of in compare_published(analysis, key):
        names = (of.quantity, of.paper_measure, of.measure, of.model, of.tuning, of.paper_model or "not in the paper")
        numbers = (of.published, of.published_low, of.published_high, of.ours, of.low, of.high, of.difference, of.n, of.published_n)
        tasks = [known.key for known in analysis.outcomes if (known.model, known.tuning) == (of.model, of.tuning)]
        cells = sources.points(tasks, of.measure, GAIN) if of.ours is not None else ()
        rows.append(Line((*names, *numbers, of.note), cells))
    caption = "Lowest and highest: of the paper's models. Low and high: the study's bootstrap interval."
    return Table(columns, rows, "published", caption)


def scores_tables(analysis: Analysis, collected: Collected) -> Iterator[Table]:
    """Every measure of every task, a table for each model."""
    for model in analysis.models:
        known = {(row["measure"], row["task"]): row for row in collected.scores if row["model"] == model}
        tasks = [task for task in analysis.tasks if any(of == task for _, of in known)]
        rows = []
        for measure in dict.fromkeys(measure for measure, _ in known):
            found = [known.get((measure, task)) for task in tasks]
            rows.append(Line((measure, *(Traced(row["score"], (row["cell"],)) if row else None for row in found))))
        if rows:
            yield Table((Column("measure"), *(Column(task, ".4g") for task in tasks)), rows, caption=model)


def scores_list(collected: Collected) -> Table:
    """All scores with their intervals, for the CSV."""
    names = ("model", "task", "measure", "score", "stderr", "low", "high", "interval", "calculation_seconds", "error")
    rows = [Line(tuple(row[name] for name in names), (row["cell"],)) for row in collected.scores]  # type: ignore[literal-required]
    return Table(tuple(Column(name) for name in names), rows, "scores")


def zero_shot_table(collected: Collected) -> Table:
    """The untuned encoders on the test splits."""
    columns = (
        *(Column("model"), Column("task"), Column("zero-shot", ".3f"), Column("mean per class", ".3f")),
        *(Column("worst group", ".3f"), Column("images", "d")),
    )
    rows = [
        Line((row["model"], row["task"], row["top1"], row["mean_per_class"], row["worst_group"], row["n_images"]), (row["cell"],))
        for row in collected.zero_shot
    ]
    return Table(columns, rows, ZERO_SHOT, "Zero-shot accuracy on the test split.")


def trainings_list(collected: Collected) -> Table:
    """Every training run of every grid, for the CSV."""
    names = ("model", "tuning", "setting", "task", "seed", "best_validation", "best_epoch", "zero_shot_validation", "seconds", "checkpoint")
    rows = [Line(tuple(row[name] for name in names), (row["cell"],)) for row in collected.trainings]  # type: ignore[literal-required]
    return Table(tuple(Column(name) for name in names), rows, "trainings")


def cost_tables(analysis: Analysis) -> Iterator[Table]:
    """Seconds of the measures and of the fine-tuning that they spare."""
    seconds = [Column(name, ".3g") for name in ("embedding s", "text s", "calculation s", "total s")]
    rows = [
        Line((of.model, of.measure, of.n, of.embedding_seconds, of.text_seconds, of.calculation_seconds, of.total_seconds), of.cells)
        for of in analysis.costs
    ]
    columns = (Column("model"), Column("measure"), Column("tasks", "d"), *seconds)
    yield Table(columns, rows, "costs", "Mean seconds a task; the embeddings are made once for all measures that need them.")
    trainings = [Line((of.model, of.tuning, of.n, of.runs, of.seconds), of.cells) for of in analysis.training_costs]
    columns = (*WHO, Column("tasks × seeds", "d"), Column("runs", "d"), Column("seconds", ".3g"))
    yield Table(columns, trainings, "training_costs", "Fine-tuning: mean seconds of the whole grid on one task with one seed.")
