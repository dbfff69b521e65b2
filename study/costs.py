"""What a measure costs beside what it spares: seconds of embedding, of calculation, and of the fine-tuning it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metrics.table import METRICS
from study.collected import Collected, EmbedRow, ScoreRow, TrainingRow
from study.plan import Plan


@dataclass(frozen=True)
class MeasureCost:
    """Seconds that one measure takes on one task, means over the ``n`` tasks where they are known."""

    model: str
    measure: str
    n: int  # how many tasks
    embedding_seconds: float  # of the images; 0 for a measure that does not look at them
    text_seconds: float  # of the class texts; 0 for a measure that does not look at them
    calculation_seconds: float
    cells: tuple[str, ...]  # JSON files of the seconds

    @property
    def total_seconds(self) -> float:
        """From the images to the score."""
        return self.embedding_seconds + self.text_seconds + self.calculation_seconds


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of fine-tuning on one task, the whole grid with one seed: what a prediction spares."""

    model: str
    tuning: str
    n: int  # how many (task, seed), of which every setting of the grid is done
    runs: int  # how many trainings
    seconds: float  # mean over the n of the sum over the grid
    cells: tuple[str, ...]  # JSON files of the seconds


def measure_costs(collected: Collected) -> list[MeasureCost]:
    """The cost of every measure on every model, over the tasks that have been measured."""
    embeds = {(row["model"], row["task"]): row for row in collected.embeds}
    groups: dict[tuple[str, str], list[tuple[EmbedRow, ScoreRow]]] = {}
    for score in collected.scores:
        embed = embeds.get((score["model"], score["task"]))
        if embed is not None and score["score"] is not None and None not in _seconds(embed, score):
            groups.setdefault((score["model"], score["measure"]), []).append((embed, score))
    return [_measure_cost(model, measure, pairs) for (model, measure), pairs in groups.items()]


def _seconds(embed: EmbedRow, score: ScoreRow) -> tuple[float | None, float | None, float | None]:
    """Of images, texts and calculation; what the measure does not need costs nothing."""
    metric = METRICS[score["measure"]]
    images = embed["embedding_seconds"] if metric.needs_images else 0.0
    return images, embed["text_seconds"] if metric.needs_text else 0.0, score["calculation_seconds"]


def _measure_cost(model: str, measure: str, pairs: Sequence[tuple[EmbedRow, ScoreRow]]) -> MeasureCost:
    images, text, calculation = np.asarray([_seconds(*pair) for pair in pairs], np.float64).mean(axis=0).tolist()
    cells = tuple(row["cell"] for pair in pairs for row in pair)
    return MeasureCost(model, measure, len(pairs), images, text, calculation, cells)


def training_costs(collected: Collected, plan: Plan) -> list[TrainingCost]:
    """The cost of every tuning on every model, over the (task, seed) whose grid is done."""
    grids: dict[tuple[str, str], dict[tuple[str, int], list[TrainingRow]]] = {}
    for row in collected.trainings:
        if row["seconds"] is not None:
            grids.setdefault((row["model"], row["tuning"]), {}).setdefault((row["task"], row["seed"]), []).append(row)
    sizes = {tuning.name: len(tuning.grid) for tuning in plan.tunings}
    done = {(model, tuning): [rows for rows in of.values() if len(rows) == sizes.get(tuning, 1)] for (model, tuning), of in grids.items()}
    return [_training_cost(model, tuning, grids) for (model, tuning), grids in done.items() if grids]


def _training_cost(model: str, tuning: str, grids: Sequence[Sequence[TrainingRow]]) -> TrainingCost:
    rows = [row for grid in grids for row in grid]
    seconds = sum(row["seconds"] or 0.0 for row in rows) / len(grids)
    return TrainingCost(model, tuning, len(grids), len(rows), seconds, tuple(row["cell"] for row in rows))
