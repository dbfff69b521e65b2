"""What fine-tuning gained on each task, with the setting that validation chose and the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.collected import Collected, EvaluatedRow, ZeroShotRow
from study.forgetting import ForgettingMatrix, forgetting_matrices
from study.outcomes import Outcome, gain


@dataclass(frozen=True)
class SeedRun:
    """One seed's run on a task, tested on that task."""

    seed: int
    accuracy: float  # on the test split
    validation: float | None  # of the chosen setting
    setting: str  # label of the setting that was best on validation
    cell: str  # JSON file of the test, relative to the study's folder


@dataclass(frozen=True)
class GainRow:
    """Fine-tuning ``model`` by ``tuning`` on ``task``, tested on ``task``: means over the seeds. Accuracies are shares in [0, 1]."""

    model: str
    tuning: str
    task: str
    zero_shot_accuracy: float | None  # None where it is not known; then there is no gain either
    accuracy_after: float  # mean over the seeds
    accuracy_std: float | None  # standard deviation over the seeds (n - 1), None for a single seed
    gain: float | None  # (after - zero-shot) / (1 - zero-shot), of the means; None where zero-shot is unknown or 1
    gain_std: float | None
    mean_change_elsewhere: float | None  # mean change of accuracy on the other tasks, forgetting is negative
    runs: tuple[SeedRun, ...]
    cells: tuple[str, ...]  # JSON files of the accuracies above, the zero-shot one first

    @property
    def name(self) -> str:
        """As notes call it."""
        return f"{self.model}, {self.tuning}, {self.task}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The chosen settings, each once, in the order of the seeds."""
        return tuple(dict.fromkeys(run.setting for run in self.runs))


def gain_rows(collected: Collected, matrices: Sequence[ForgettingMatrix]) -> list[GainRow]:
    """A row for every (model, tuning, task) that was tested on its own task."""
    groups: dict[tuple[str, str, str], list[EvaluatedRow]] = {}
    for row in collected.tests:
        if row["task"] == row["eval_task"]:
            groups.setdefault((row["model"], row["tuning"], row["task"]), []).append(row)
    zero_shot = {(row["model"], row["task"]): row for row in collected.zero_shot}
    elsewhere = {(of.model, of.tuning): of for of in matrices}
    rows = [_row(rows, zero_shot.get((model, task))) for (model, _, task), rows in groups.items()]
    return [replace(row, mean_change_elsewhere=elsewhere[row.model, row.tuning].mean_change_elsewhere(row.task)) for row in rows]


def _row(tests: Sequence[EvaluatedRow], zero_shot: ZeroShotRow | None) -> GainRow:
    first, accuracies = tests[0], [row["top1"] for row in tests]
    after, spread = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)) if len(tests) > 1 else None
    before = None if zero_shot is None else zero_shot["top1"]
    defined = before is not None and before < 1
    return GainRow(
        *(first["model"], first["tuning"], first["task"], before, after, spread),
        gain=gain(before, after, first["task"]) if before is not None and defined else None,
        gain_std=spread / (1 - before) if before is not None and defined and spread is not None else None,
        mean_change_elsewhere=None,
        runs=tuple(SeedRun(row["seed"], row["top1"], row["validation"], row["chosen"], row["cell"]) for row in tests),
        cells=(*(() if zero_shot is None else (zero_shot["cell"],)), *(row["cell"] for row in tests)),
    )


def outcomes(collected: Collected) -> list[Outcome]:
    """The outcome of every (model, tuning, task) that was tested on its own task and whose gain is defined, with all its scores."""
    return outcomes_of(gain_rows(collected, forgetting_matrices(collected)), scores_of(collected))


def outcomes_of(gains: Sequence[GainRow], scores: Mapping[tuple[str, str], Mapping[str, float]]) -> list[Outcome]:
    """The gains as outcomes; ``scores`` are by (model, task), then measure."""
    return [
        Outcome(
            *(row.model, row.tuning, row.task, row.zero_shot_accuracy, row.accuracy_after, row.mean_change_elsewhere),
            scores=scores.get((row.model, row.task), {}),
        )
        for row in gains
        if row.zero_shot_accuracy is not None and row.gain is not None
    ]


def scores_of(collected: Collected) -> dict[tuple[str, str], dict[str, float]]:
    """The scores that are defined: (model, task) -> measure -> score."""
    known: dict[tuple[str, str], dict[str, float]] = {}
    for row in collected.scores:
        if row["score"] is not None:
            known.setdefault((row["model"], row["task"]), {})[row["measure"]] = row["score"]
    return known
