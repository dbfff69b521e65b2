"""What fine-tuning on one task does to the others: the matrix of changes of accuracy, trained on x evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.naming import parse_name
from study.collected import Collected, EvaluatedRow, ZeroShotRow
from study.regression import Float64


@dataclass(frozen=True, eq=False)
class ForgettingMatrix:
    """Changes of accuracy against zero-shot, means over the seeds, of one model and tuning. Shares: -0.1 is ten points lost.

    Where a row and a column are the same task stands what was gained there; that is no part of what is forgotten.
    """

    model: str
    tuning: str
    trained_on: tuple[str, ...]  # of the rows
    evaluated_on: tuple[str, ...]  # of the columns
    change: Float64  # [rows, columns]: accuracy after - zero-shot accuracy; NaN where either is unknown
    cells: Mapping[tuple[str, str], tuple[str, ...]]  # (trained on, evaluated on) -> JSON files, the zero-shot one first

    @property
    def unknown(self) -> tuple[str, ...]:
        """Tasks of the columns of which no change is known after training on another data set; no mean takes them in."""
        known = ~np.isnan(self.change) & self._others
        return tuple(name for name, column in zip(self.evaluated_on, known.T, strict=True) if not column.any())

    @property
    def _others(self) -> NDArray[np.bool_]:
        """Whether row and column are different data sets, [rows, columns]; a corrupted copy or another split is no other one."""
        rows, columns = (np.asarray([parse_name(name).base for name in names], object) for names in (self.trained_on, self.evaluated_on))
        return np.asarray(rows[:, None] != columns[None, :], bool)

    def mean_change_elsewhere(self, task: str) -> float | None:
        """Mean of the row of ``task`` over the other data sets; None when there is none, or one of them is not known.

        Columns of which nothing is known are left out for every row, so the means of all rows are over the same tasks.
        """
        if task not in self.trained_on:
            return None
        row = self.trained_on.index(task)
        changes = self.change[row, self._others[row] & ~np.isin(self.evaluated_on, self.unknown)]
        return float(changes.mean()) if changes.size and not np.isnan(changes).any() else None


def forgetting_matrices(collected: Collected) -> list[ForgettingMatrix]:
    """The matrix of every (model, tuning) of which something was tested."""
    groups: dict[tuple[str, str], list[EvaluatedRow]] = {}
    for row in collected.tests:
        groups.setdefault((row["model"], row["tuning"]), []).append(row)
    return [_matrix(model, tuning, rows, _zero_shot_of(model, collected)) for (model, tuning), rows in groups.items()]


def _zero_shot_of(model: str, collected: Collected) -> dict[str, ZeroShotRow]:
    return {row["task"]: row for row in collected.zero_shot if row["model"] == model}


def _matrix(model: str, tuning: str, rows: Sequence[EvaluatedRow], zero_shot: Mapping[str, ZeroShotRow]) -> ForgettingMatrix:
    tested: dict[tuple[str, str], list[EvaluatedRow]] = {}
    for row in rows:
        tested.setdefault((row["task"], row["eval_task"]), []).append(row)
    order = list(zero_shot)  # the plan's; an unfinished study has tests of later tasks before those of earlier ones
    columns = {row["eval_task"] for row in rows}
    evaluated_on = [*(name for name in order if name in columns), *sorted(columns - set(order))]
    trained_on = list(dict.fromkeys(row["task"] for row in rows))
    change = np.full((len(trained_on), len(evaluated_on)), np.nan)
    for (task, eval_task), of_seeds in tested.items():
        if eval_task in zero_shot:
            after = float(np.mean([row["top1"] for row in of_seeds]))
            change[trained_on.index(task), evaluated_on.index(eval_task)] = after - zero_shot[eval_task]["top1"]
    cells = {pair: (*_cell(zero_shot.get(pair[1])), *(row["cell"] for row in of_seeds)) for pair, of_seeds in tested.items()}
    return ForgettingMatrix(model, tuning, tuple(trained_on), tuple(evaluated_on), change, cells)


def _cell(row: ZeroShotRow | None) -> tuple[str, ...]:
    return () if row is None else (row["cell"],)
