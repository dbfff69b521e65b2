"""Which cells' JSON files a number of the report comes from."""

from __future__ import annotations

from collections.abc import Iterable

from study.analysis import Analysis
from study.collected import Collected
from study.outcomes import ZERO_SHOT
from study.prediction import GAIN


class Sources:
    """Paths of JSON files, relative to the study's folder, each once."""

    def __init__(self, analysis: Analysis, collected: Collected):
        self._gains = {(row.model, row.tuning, row.task): row.cells for row in analysis.gains}
        self._matrices = {(of.model, of.tuning): of for of in analysis.forgetting}
        self._scores = {(row["model"], row["task"], ZERO_SHOT): row["cell"] for row in collected.zero_shot}
        self._scores |= {(row["model"], row["task"], row["measure"]): row["cell"] for row in collected.scores}

    def score(self, model: str, task: str, measure: str) -> tuple[str, ...]:
        """Of one score; zero-shot accuracy is a score too."""
        found = self._scores.get((model, task, measure))
        return () if found is None else (found,)

    def outcome(self, model: str, tuning: str, task: str, outcome: str) -> tuple[str, ...]:
        """Of the gain on a task, or of the mean change on the others."""
        if outcome == GAIN:
            return self._gains.get((model, tuning, task), ())
        matrix = self._matrices.get((model, tuning))
        if matrix is None:
            return ()
        return once(cell for (trained, evaluated), cells in matrix.cells.items() if trained == task != evaluated for cell in cells)

    def points(self, pairs: Iterable[tuple[str, str, str]], measure: str, outcome: str) -> tuple[str, ...]:
        """Of the scores and outcomes of some (model, tuning, task)."""
        return once(
            cell
            for model, tuning, task in pairs
            for cell in (*self.score(model, task, measure), *self.outcome(model, tuning, task, outcome))
        )


def once(cells: Iterable[str]) -> tuple[str, ...]:
    """Each path once, in the order in which they come."""
    return tuple(dict.fromkeys(cells))
