"""From a plan to its cells, in units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from common.files import slug
from datasets.naming import parse_name
from study.cells import Cell, Unit, short
from study.inversion_cells import inversion_units
from study.merging_cells import merging_units
from study.plan import Plan, Setting, TuningPlan


def expand(plan: Plan) -> list[Unit]:
    """All units of a plan; those of one model follow each other, so that it is loaded once."""
    units = [unit for model in plan.models for unit in _of_model(plan, model)]
    names = Counter(unit.name for unit in units)
    return [unit if names[unit.name] == 1 else replace(unit, name=f"{unit.name}-{unit.cells[0].name[-8:]}") for unit in units]


def _of_model(plan: Plan, model: str) -> Iterator[Unit]:
    yield from _measured(plan, model)
    yield from _tuned(plan, model)
    yield from inversion_units(plan, model)
    yield from merging_units(plan, model)


def _measured(plan: Plan, model: str) -> Iterator[Unit]:
    """Per task the untuned model, its embeddings and the measures; the untuned model alone on tasks that are only tested on."""
    for task in dict.fromkeys((*plan.tasks, *plan.eval_tasks)):
        key = {"model": model, "task": task}
        cells = [Cell("zero_shot", key)]
        if task in plan.tasks:
            cells += [Cell("embed", key), *(Cell("measure", {**key, "measure": measure}) for measure in plan.measures)]
        yield Unit("_".join((short(model), short(task))), tuple(cells))


def _tuned(plan: Plan, model: str) -> Iterator[Unit]:
    """Per tuning, task and seed all settings, and the tests of the best one."""
    for tuning in plan.tunings_of(model):
        for task in plan.tasks:
            for seed in plan.seeds:
                key = {"model": model, "tuning_name": tuning.name, "task": task, "seed": seed}
                trains = (Cell("train", {**key, "tuning": tuning.tuning, "setting": _setting(tuning, point)}) for point in tuning.grid)
                tests = (Cell("test", {**key, "eval_task": name}) for name in tested_on(plan, tuning, task))
                yield Unit("_".join((short(model), slug(tuning.name), short(task), f"seed{seed}")), (*trains, *tests))


def _setting(tuning: TuningPlan, point: Setting) -> dict[str, Any]:
    return {"label": point.label, **point.values(tuning.tuning)}


def tested_on(plan: Plan, tuning: TuningPlan, task: str) -> list[str]:
    """The tasks on which a model that was tuned on ``task`` is tested: that task and all others.

    A probe knows no classes but those that it was trained on, so it is tested on the same data set only (a corrupted one, say).
    """
    names = dict.fromkeys((task, *plan.eval_tasks))
    return [name for name in names if tuning.tuning != "probe" or parse_name(name).base == parse_name(task).base]
