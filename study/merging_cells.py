"""The cells of a plan's merging: fine-tuned models on all tasks, and per merge what is written and how it does on all tasks.

============================  =====================================================================================================
unit                          cells
============================  =====================================================================================================
MODEL_TASK                    zero-shot accuracy of the untuned model, on clean and on corrupted images
MODEL_single-TASK             the fine-tuned model of the task on all tasks
MODEL_LABEL-..._seedS-HASH    a merge, and its accuracy on all tasks
MODEL_merging_seedS           all of these but the first, where the fine-tuned models are trained here: every merge needs every training
============================  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from study.cells import Cell, Unit, short
from study.plan import Plan
from study.plan_merging import FINE_TUNE, MergingMethod, MergingPlan, clean


def merging_units(plan: Plan, model: str) -> Iterator[Unit]:
    """All units of one model's merging; the untuned model first."""
    if (of := plan.merging) is None:
        return
    yield from _untuned(plan, of, model)
    if of.train is None:
        yield from _single_units(of, model)
    for seed in plan.seeds:
        merges = list(_merges(of, model, seed))
        if of.train is None:
            yield from (_merge_unit(cells) for cells in merges)
        else:
            trains = [_train(of, model, task, seed) for task in of.tasks.values()]
            singles = [cell for task in of.tasks.values() for cell in _singles(of, model, task, {"seed": seed})]
            yield Unit(f"{short(model)}_merging_seed{seed}", (*trains, *singles, *(cell for cells in merges for cell in cells)))


def _untuned(plan: Plan, of: MergingPlan, model: str) -> Iterator[Unit]:
    """Of data sets whose zero-shot accuracy no other part of the plan asks for."""
    known = {*plan.tasks, *plan.eval_tasks, *(plan.inversion.zero_shot_tasks if plan.inversion else ())}
    for task in (task for task in of.names if task not in known):
        yield Unit(f"{short(model)}_{short(task)}", (Cell("zero_shot", {"model": model, "task": task}),))


def _single_units(of: MergingPlan, model: str) -> Iterator[Unit]:
    for task in of.tasks.values():
        yield Unit(f"{short(model)}_single-{short(task)}", tuple(_singles(of, model, task, {})))


def _singles(of: MergingPlan, model: str, task: str, seed: dict[str, int]) -> Iterator[Cell]:
    """The fine-tuned model of one task on all of them."""
    for name in of.names:
        yield Cell("single_test", {"model": model, "fine_tune": task, "eval_task": name, **seed})


def _train(of: MergingPlan, model: str, task: str, seed: int) -> Cell:
    assert of.train is not None
    setting = {"label": of.train.label, **of.train.values(of.tuning)}
    return Cell("train", {"model": model, "tuning_name": FINE_TUNE, "tuning": of.tuning, "setting": setting, "task": task, "seed": seed})


def _merges(of: MergingPlan, model: str, seed: int) -> Iterator[list[Cell]]:
    """Every merge with its tests: of a method that adapts to what it is tested on, one for each corruption besides the clean one."""
    for method in of.methods:
        for point in method.points:
            for adapt in (None, *of.corruptions) if method.transductive else (None,):
                merge: dict[str, Any] = {"label": method.label, "method": method.method, "options": dict(point)}
                merge |= {"tasks": list(of.tasks.values()), "adapt": adapt, **({"per_model": True} if method.per_model else {})}
                key = {"model": model, "merge": merge, "seed": seed}
                tests = (Cell("merged_test", {**key, "eval_task": name}) for name in _tested_on(of, method, adapt))
                yield [Cell("merge", key), *tests]


def _tested_on(of: MergingPlan, method: MergingMethod, adapt: str | None) -> list[str]:
    """A merge that was adapted is tested on images of the kind it was adapted to; the encoders of single tasks each on its own."""
    names = of.evaluated(adapt) if method.transductive else list(of.names)
    return [name for name in names if not method.per_model or clean(name) in of.tasks.values()]


def _merge_unit(cells: list[Cell]) -> Unit:
    return Unit(cells[0].name, tuple(cells))


def train_of(unit: Unit, task: str) -> Cell | None:
    """The training of a task's model in the unit; None where models are not trained here."""
    return next((cell for cell in unit.of_kind("train") if cell.key["task"] == task), None)


def merge_of(unit: Unit, cell: Cell) -> Cell:
    """The merge that a test is of."""
    return next(merge for merge in unit.of_kind("merge") if merge.key["merge"] == cell.key["merge"])
