"""What speaks against the settings that validation chose: a grid too narrow, unfinished, or of no use. One sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from common.files import exact
from study.collected import Collected, TrainingRow
from study.gains import GainRow
from study.plan import Plan, TuningPlan

Run = tuple[str, str, str, int]  # model, tuning, task, seed


def notes_on_choices(collected: Collected, plan: Plan, gains: Sequence[GainRow]) -> Iterator[str]:
    """All notes on what was chosen from the grids."""
    best = _best(collected)
    yield from _outdated(collected, best)
    yield from _parts_of_grids(collected, plan, gains)
    yield from _of_no_use(gains, best)
    for model in plan.models:
        for tuning in plan.tunings_of(model):
            yield from _ends_of_grid(model, tuning, [row for run, row in best.items() if run[:2] == (model, tuning.name)])


def _best(collected: Collected) -> dict[Run, TrainingRow]:
    """Of every run the training with the best validation accuracy, the first of the grid on a tie."""
    best: dict[Run, TrainingRow] = {}
    for row in collected.trainings:
        run = row["model"], row["tuning"], row["task"], row["seed"]
        if run not in best or row["best_validation"] > best[run]["best_validation"]:
            best[run] = row
    return best


def _outdated(collected: Collected, best: dict[Run, TrainingRow]) -> Iterator[str]:
    """Tests of a setting that is no longer the best of those trained: the grid has grown, or a failed training was done since."""
    for row in collected.tests:
        now = best.get((row["model"], row["tuning"], row["task"], row["seed"]))
        better = now is not None and row["validation"] is not None and now["best_validation"] > row["validation"]
        if now is not None and better and now["values"] != row["values"]:
            run, chosen = f"{row['model']}, {row['tuning']}, {row['task']}, seed {row['seed']}", row["chosen"]
            yield f"{run}: tested with {chosen}, though {now['setting']} is better on validation by now; run the study again."


def _parts_of_grids(collected: Collected, plan: Plan, gains: Sequence[GainRow]) -> Iterator[str]:
    sizes = {tuning.name: len(tuning.grid) for tuning in plan.tunings}
    done = Counter((row["model"], row["tuning"], row["task"], row["seed"]) for row in collected.trainings)
    for row in gains:
        fewest = min(done[row.model, row.tuning, row.task, run.seed] for run in row.runs)
        if fewest < sizes[row.tuning]:
            yield f"{row.name}: validation chose among {fewest} of the grid's {sizes[row.tuning]} settings, for want of the others."


def _of_no_use(gains: Sequence[GainRow], best: dict[Run, TrainingRow]) -> Iterator[str]:
    for row in gains:
        runs = [best.get((row.model, row.tuning, row.task, run.seed)) for run in row.runs]
        if any(run and run["zero_shot_validation"] is not None and run["best_validation"] <= run["zero_shot_validation"] for run in runs):
            yield f"{row.name}: no setting of the grid raises the validation accuracy above what it is before training."


def _ends_of_grid(model: str, tuning: TuningPlan, best: Sequence[TrainingRow]) -> Iterator[str]:
    """Says when the best learning rate is mostly the least or the greatest, of at least three."""
    rates = sorted({setting.fit.lr for setting in tuning.grid})
    for word, end in (("lowest", rates[0]), ("highest", rates[-1])):
        count = sum(row["values"]["lr"] == end for row in best)
        if len(rates) > 2 and 2 * count > len(best):
            often = f"in {count} of {len(best)} runs"
            yield f"{model}, {tuning.name}: validation chose the {word} learning rate of the grid, {exact(end)}, {often}; try beyond it."
