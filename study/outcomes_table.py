"""Reading the table of known outcomes, and joining it with a table of scores.

The outcomes: one row per model, tuning and task with ``model, tuning, task, zero_shot_accuracy, accuracy_after``, perhaps
``mean_change_elsewhere``, and the scores: one further column per measure, or one row per measure with the columns
``measure, score``. Accuracies are shares in [0, 1]; an unknown score or change is an empty cell.

The scores may come from a table of their own, as get_metric_scores.py writes it: ``data, model, finetuning, split, measure,
score``. They belong to the outcomes of the same model and task, whatever the tuning: a score is taken before tuning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError, nearest
from common.files import read_csv
from metrics.metric import AS_DEFINED
from metrics.table import BY_ANY_NAME
from study.outcomes import Outcome

KEY = ("model", "tuning", "task")
ACCURACIES = ("zero_shot_accuracy", "accuracy_after")
CHANGE = "mean_change_elsewhere"
LONG = ("measure", "score")
SCORES = ("data", "model", "measure", "score")
ALIASES = {"train_data": "data", "metric": "measure"}  # get_transfer_scores.py names these two as the released code does
UNTUNED = ("", "none")
UNKNOWN = ("", "nan", "na", "n/a", "none", "null")  # how tables write a number that is not there
SAME_SCORE = 1e-9  # of two rows of one measurement, relative: another processor rounds differently

Row = Mapping[str, str]


class Known(NamedTuple):
    """A score and the split of the images that it was computed on."""

    score: float
    split: str


def canonical(measure: str) -> str:
    """The name that clipscope has for a measure, whatever it was called; what it does not know stays as it is."""
    return BY_ANY_NAME[measure].name if measure in BY_ANY_NAME else measure


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes in the CSV table at ``path``, in its order; UserError names the line and column of what is wrong."""
    rows = _rows(path, (*KEY, *ACCURACIES), "an outcomes table")
    if all(column in rows[0] for column in LONG):
        return _one_row_per_measure(path, rows)
    columns = _score_columns(path, rows)
    outcomes: dict[tuple[str, ...], Outcome] = {}
    for line, row in enumerate(rows, start=2):
        scores = {measure: _number(row[column]) for measure, column in columns.items()}
        outcome = _outcome(f"'{path}', line {line}", row)
        if outcome.key in outcomes:
            raise UserError(f"'{path}', line {line}: a second row of {', '.join(outcome.key)}; average repeated runs first.")
        outcomes[outcome.key] = replace(outcome, scores=_known(scores))
    return list(outcomes.values())


def read_scores(path: Path, split: str | None = None) -> dict[tuple[str, str], dict[str, Known]]:
    """The scores of untuned encoders at ``path``: (model, task) -> measure -> score; of one split if ``split`` is given.

    Numbers "as released" are left out: a new task is scored by the definition.
    UserError when a measure has two different scores for the same model and task, as from two splits or shares of images.
    """
    known: dict[tuple[str, str], dict[str, Known]] = {}
    for line, row in enumerate(_rows(path, SCORES, "a table of scores"), start=2):
        score = _score(f"'{path}', line {line}", row["score"])
        of_split = row.get("split", "")
        comparable = row.get("finetuning", "") in UNTUNED and row.get("variant", AS_DEFINED) in ("", AS_DEFINED)
        if score is None or not comparable or split not in (None, of_split):
            continue
        measure, model, task = canonical(row["measure"]), row["model"], row["data"]
        first = known.setdefault((model, task), {}).setdefault(measure, Known(score, of_split))
        if not math.isclose(first.score, score, rel_tol=SAME_SCORE):
            raise UserError(_ambiguous(f"'{path}', line {line}", f"'{measure}' of {model}, {task}", first, Known(score, of_split)))
    if not known:
        of = f"the split '{split}' of " if split else ""
        raise UserError(f"'{path}' has no score on {of}untuned encoders (finetuning 'none') by the measures' definition.")
    return known


def joined(outcomes: Sequence[Outcome], scores: Mapping[tuple[str, str], Mapping[str, Known]], path: Path) -> list[Outcome]:
    """The outcomes with the scores of their model and task added; UserError when none has any, or has the measure already."""
    found = [_with_scores(outcome, scores.get((outcome.model, outcome.task), {}), path) for outcome in outcomes]
    if not any(outcome.score_splits for outcome in found):
        wanted, there = (f"{model}, {task}" for model, task in ((outcomes[0].model, outcomes[0].task), next(iter(scores))))
        raise UserError(f"'{path}' has no score of any outcome's model and task: it has '{there}', the outcomes '{wanted}'.")
    return found


def _with_scores(outcome: Outcome, known: Mapping[str, Known], path: Path) -> Outcome:
    for measure in outcome.scores:
        if measure in known:
            raise UserError(f"Both the outcomes and '{path}' have '{measure}' of {outcome.model}, {outcome.task}; keep one of them.")
    return replace(
        outcome,
        scores={**outcome.scores, **{measure: of.score for measure, of in known.items()}},
        score_splits={measure: of.split for measure, of in known.items()},
    )


def _ambiguous(where: str, what: str, one: Known, other: Known) -> str:
    if one.split != other.split:
        return f"{where}: {what} is {one.score:g} on the split '{one.split}' and {other.score:g} on '{other.split}'; choose with --split."
    return f"{where}: {what} is {other.score:g} here and {one.score:g} in an earlier row; keep one of them."


def _rows(path: Path, columns: Sequence[str], what: str) -> list[dict[str, str]]:
    """The rows of a table with ``columns`` and at least one row; cells and names without the spaces around them."""
    if not path.is_file():
        raise UserError(f"'{path}' is a folder; expected {what}." if path.is_dir() else f"No such file: '{path}'.")
    # A byte order mark is what spreadsheets put before the first column's name.
    rows = [{_column(name): cell.strip() for name, cell in row.items()} for row in read_csv(path)]
    if not rows:
        raise UserError(f"'{path}' has no rows; expected {what} with {', '.join(columns)}.")
    for column in columns:
        if column not in rows[0]:
            guess = nearest(column, set(rows[0]) - set(columns))
            hint = f"is '{guess}' meant?" if guess else f"{what} has {', '.join(columns)}."
            raise UserError(f"'{path}' has no column '{column}'; {hint}")
    return rows


def _column(name: str) -> str:
    name = name.removeprefix("\ufeff").strip()
    return ALIASES.get(name, name)


def _one_row_per_measure(path: Path, rows: Sequence[Row]) -> list[Outcome]:
    """One outcome of all rows of the same model, tuning and task; they must agree in all but measure and score."""
    outcomes: dict[tuple[str, ...], Outcome] = {}
    scores: dict[tuple[str, ...], dict[str, float | None]] = {}
    for line, row in enumerate(rows, start=2):
        where = f"'{path}', line {line}"
        outcome, measure = _outcome(where, row), canonical(row["measure"])
        if outcomes.setdefault(outcome.key, outcome) != outcome:
            raise UserError(f"{where}: the outcome of {', '.join(outcome.key)} differs from that of an earlier line.")
        of_outcome = scores.setdefault(outcome.key, {})
        if measure in of_outcome:
            raise UserError(f"{where}: a second score '{measure}' of {', '.join(outcome.key)}; keep one of them.")
        of_outcome[measure] = _score(where, row["score"])
    return [replace(outcome, scores=_known(scores[key])) for key, outcome in outcomes.items()]


def _score_columns(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Measure -> its column: all further columns that hold numbers only, and a measure's column must. Two of one are an error."""
    found: dict[str, str] = {}
    for column in rows[0]:
        measure = canonical(column)
        wrong = [row[column] for row in rows if not _is_number(row[column])]
        if column in (*KEY, *ACCURACIES, CHANGE) or (wrong and measure not in BY_ANY_NAME):
            continue  # a column of words is a note
        if wrong:
            raise UserError(f"'{path}': '{wrong[0]}' in column '{column}' is not a number; leave the cell empty where it is not known.")
        if measure in found:
            raise UserError(f"'{path}' has the measure '{measure}' twice, as '{found[measure]}' and '{column}'; keep one of them.")
        found[measure] = column
    return found


def _outcome(where: str, row: Row) -> Outcome:
    """The outcome of a row, without scores."""
    for column in KEY:
        if not row[column]:
            raise UserError(f"{where}: the {column} is empty.")
    before, after = (_accuracy(where, column, row[column]) for column in ACCURACIES)
    change = _accuracy(where, CHANGE, row[CHANGE], least=-1.0) if row.get(CHANGE, "").lower() not in UNKNOWN else None
    return Outcome(row["model"], row["tuning"], row["task"], before, after, change)


def _accuracy(where: str, column: str, cell: str, least: float = 0.0) -> float:
    value = _number(cell) if _is_number(cell) else None
    if value is None:
        raise UserError(f"{where}: '{cell}' in column '{column}' is not an accuracy; leave out rows whose outcome is not known.")
    if not least <= value <= 1:
        hint = "if it is per cent, divide by 100" if abs(value) <= 100 else f"expected a share in [{least:g}, 1]"
        raise UserError(f"{where}: {column} is {value:g}, but accuracies are shares in [{least:g}, 1]; {hint}.")
    return value


def _score(where: str, cell: str) -> float | None:
    if not _is_number(cell):
        raise UserError(f"{where}: the score '{cell}' is not a number.")
    return _number(cell)


def _is_number(cell: str) -> bool:
    try:
        return cell.lower() in UNKNOWN or not math.isnan(float(cell))
    except ValueError:
        return False


def _number(cell: str) -> float | None:
    """The number in a cell that holds one; None where it is not known, or not finite, from which nothing can be fitted."""
    value = math.nan if cell.lower() in UNKNOWN else float(cell)
    return value if math.isfinite(value) else None


def _known(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {measure: score for measure, score in scores.items() if score is not None}
