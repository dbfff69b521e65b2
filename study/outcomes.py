"""The table of known outcomes: what fine-tuning did to tasks on which it has already been tried, beside their scores.

One row per model, tuning and task: ``model, tuning, task, zero_shot_accuracy, accuracy_after, mean_change_elsewhere`` and the
scores, either one column per measure or one row per measure with the columns ``measure, score``. Accuracies are shares in
[0, 1]; ``mean_change_elsewhere``, the mean change of accuracy on the other tasks (forgetting is negative), may be empty.
Scores may come from a table of their own instead: see :mod:`study.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, nearest, unknown_name
from common.files import read_csv
from metrics.table import BY_ANY_NAME

KEY = ("model", "tuning", "task")
REQUIRED = (*KEY, "zero_shot_accuracy", "accuracy_after")
CHANGE = "mean_change_elsewhere"
LONG = ("measure", "score")
BASELINE = "zero_shot"  # zero-shot accuracy is known for every row, so it stands by as the score that others must beat
UNKNOWN = ("", "nan", "na", "n/a", "none", "null")  # as tables write a number that is not there


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning ``model`` by ``tuning`` on ``task`` did, and the scores that the task had before it.

    Raises UserError for a zero-shot accuracy of 1, where there is no error left over which to gain.
    """

    model: str
    tuning: str
    task: str
    zero_shot_accuracy: float
    accuracy_after: float
    mean_change_elsewhere: float | None
    scores: Mapping[str, float]
    score_splits: Mapping[str, str]

    def __post_init__(self) -> None:
        gain(self.zero_shot_accuracy, self.accuracy_after, f"{self.model}, {self.tuning}, {self.task}")

    @property
    def gain(self) -> float:
        """See :func:`gain`."""
        return gain(self.zero_shot_accuracy, self.accuracy_after, self.task)


def gain(zero_shot_accuracy: float, accuracy_after: float, of: str) -> float:
    """Gain over zero-shot error, (after - zero-shot) / (1 - zero-shot): 1 when all errors are gone, below 0 when there are more.

    Source: Niss et al. (ICCV 2025), section 4. Raises UserError, naming ``of``, for a zero-shot accuracy of 1.

    >>> round(gain(0.632, 0.750, "SUN397"), 3)
    0.321
    """
    if zero_shot_accuracy >= 1:
        raise UserError(f"The zero-shot accuracy of {of} is 1: there is no error left, so a gain over it is not defined; leave it out.")
    return (accuracy_after - zero_shot_accuracy) / (1 - zero_shot_accuracy)


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes of the CSV table at ``path``, in its order; UserError names the row and column of what is wrong."""
    rows = _rows(path, REQUIRED, "an outcomes table")
    if all(column in rows[0] for column in LONG):
        return _from_long(path, rows)
    columns = score_columns(path, rows)
    outcomes = [_outcome(path, number, row, _scores_of(row, columns)) for number, row in enumerate(rows, start=2)]
    _refuse_duplicates(path, outcomes)
    return outcomes


def measures_of(outcomes: Iterable[Outcome]) -> list[str]:
    """The measures of which at least one outcome has a score, in the table's order, the baseline last."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.scores)
    return [*(name for name in names if name != BASELINE), *(name for name in names if name == BASELINE)]


def canonical(measure: str) -> str:
    """The name that clipscope has for a measure, whatever it was called; names that it does not know stay."""
    return BY_ANY_NAME[measure].name if measure in BY_ANY_NAME else measure


def select(outcomes: Sequence[Outcome], model: str | None = None, tuning: str | None = None) -> list[Outcome]:
    """The outcomes of one model and one tuning; UserError lists what there is when that is not decided, or not there."""
    for what, name in (("model", model), ("tuning", tuning)):
        known = {getattr(outcome, what) for outcome in outcomes}
        if name is not None and name not in known:
            raise unknown_name(what, name, known)
    chosen = filtered(outcomes, model, tuning)
    there = combinations(chosen or outcomes)
    listed = "; ".join(f"--model '{one}' --tuning '{other}'" for one, other in there)
    if not chosen:
        raise UserError(f"No outcome has --model '{model}' with --tuning '{tuning}'; there is: {listed}.")
    if len(there) > 1:
        raise UserError(f"The outcomes are of several models or tunings, and a fit is of one; choose one of: {listed}.")
    return chosen


def filtered(outcomes: Iterable[Outcome], model: str | None, tuning: str | None) -> list[Outcome]:
    """The outcomes of this model and tuning, None meaning any."""
    return [outcome for outcome in outcomes if model in (None, outcome.model) and tuning in (None, outcome.tuning)]


def combinations(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """Every (model, tuning) that occurs, in the table's order."""
    return list(dict.fromkeys((outcome.model, outcome.tuning) for outcome in outcomes))


def number_in(path: Path, number: int, column: str, text: str) -> float | None:
    """The number in a cell, None where it is empty or says that there is none; UserError for anything else."""
    if text.strip().lower() in UNKNOWN:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"'{path}', line {number}: '{text}' in column '{column}' is not a number.") from None
    return value if math.isfinite(value) else None


def score_columns(path: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Measure -> column: every further column that holds nothing but numbers. UserError when two are of one measure."""
    found: dict[str, str] = {}
    for column in rows[0]:
        if column in (*REQUIRED, CHANGE, "split") or not _is_numeric(row[column] for row in rows):
            continue
        name = canonical(column)
        if name in found:
            raise UserError(f"'{path}' has the measure '{name}' twice, as '{found[name]}' and '{column}'; keep one of the columns.")
        found[name] = column
    return found


def _is_numeric(cells: Iterable[str]) -> bool:
    known = [cell for cell in cells if cell.strip().lower() not in UNKNOWN]
    try:
        return bool([float(cell) for cell in known])
    except ValueError:
        return False


def _scores_of(row: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, float]:
    values = {name: row[column] for name, column in columns.items() if row[column].strip().lower() not in UNKNOWN}
    return {name: float(value) for name, value in values.items() if math.isfinite(float(value))}


def _rows(path: Path, columns: Sequence[str], what: str) -> list[dict[str, str]]:
    """The rows of a table that has ``columns`` and at least one row."""
    if not path.is_file():
        raise UserError(f"'{path}' is a folder; expected {what}." if path.is_dir() else f"No such file: '{path}'.")
    rows = read_csv(path)
    if not rows:
        raise UserError(f"'{path}' has no rows; expected {what}.")
    for column in columns:
        if column not in rows[0]:
            guess = nearest(column, rows[0])
            hint = f"is '{guess}' meant? " if guess and guess not in columns else ""
            raise UserError(f"'{path}' has no column '{column}'; {hint}{what[0].upper()}{what[1:]} has {', '.join(columns)}.")
    return rows


def _outcome(path: Path, number: int, row: Mapping[str, str], scores: Mapping[str, float]) -> Outcome:
    before, after = (_share(path, number, row, column) for column in ("zero_shot_accuracy", "accuracy_after"))
    change = number_in(path, number, CHANGE, row.get(CHANGE, ""))
    if change is not None:
        _refuse_percent(path, number, CHANGE, change, -1.0)
    key = {column: row[column].strip() for column in KEY}
    if not key["model"] or not key["task"]:
        raise UserError(f"'{path}', line {number}: the {'task' if key['model'] else 'model'} is empty.")
    splits = dict.fromkeys(scores, row.get("split", ""))
    return Outcome(**key, zero_shot_accuracy=before, accuracy_after=after, mean_change_elsewhere=change, scores={BASELINE: before, **scores}, score_splits=splits)


def _share(path: Path, number: int, row: Mapping[str, str], column: str) -> float:
    value = number_in(path, number, column, row[column])
    if value is None:
        raise UserError(f"'{path}', line {number}: '{row[column]}' in column '{column}' is no accuracy; leave the row out if it is not known.")
    _refuse_percent(path, number, column, value, 0.0)
    return value


def _refuse_percent(path: Path, number: int, column: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        hint = "per cent? Divide by 100" if abs(value) <= 100 else "expected a share"
        raise UserError(f"'{path}', line {number}: {column} is {value:g}, not in [{least:g}, 1]; {hint}.")


def _from_long(path: Path, rows: Sequence[Mapping[str, str]]) -> list[Outcome]:
    """One outcome of all rows of the same model, tuning and task, which must agree in everything but measure and score."""
    outcomes: dict[tuple[str, ...], Outcome] = {}
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for number, row in enumerate(rows, start=2):
        new = _outcome(path, number, row, {})
        key = (new.model, new.tuning, new.task)
        if outcomes.setdefault(key, new) != new:
            raise UserError(f"'{path}', line {number}: the outcome of {', '.join(key)} differs from that of an earlier line.")
        name, score = canonical(row["measure"].strip()), number_in(path, number, "score", row["score"])
        if name in scores.setdefault(key, {}):
            raise UserError(f"'{path}', line {number}: a second score '{name}' of {', '.join(key)}; keep one of the lines.")
        if score is not None:
            scores[key][name] = score
    return [with_scores(outcome, scores[key], dict.fromkeys(scores[key], "")) for key, outcome in outcomes.items()]


def with_scores(outcome: Outcome, scores: Mapping[str, float], splits: Mapping[str, str]) -> Outcome:
    """``outcome`` with these scores besides, or instead of, those that it has."""
    from dataclasses import replace

    return replace(outcome, scores={**outcome.scores, **scores}, score_splits={**outcome.score_splits, **splits})


def _refuse_duplicates(path: Path, outcomes: Iterable[Outcome]) -> None:
    seen: set[tuple[str, ...]] = set()
    for outcome in outcomes:
        key = (outcome.model, outcome.tuning, outcome.task)
        if key in seen:
            raise UserError(f"'{path}' has two rows of {', '.join(key)}; one outcome each is expected, so average repeated runs first.")
        seen.add(key)
