"""A finished study of any number of cells, whose records were written and not worked for: what a study costs beside its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.files import write_json
from engine.embed import LoadOptions
from models.tuning_options import TuningOptions
from study.cells import DONE, FORMAT, PRODUCTS, Cell, Unit, hash_of
from study.expansion import expand
from study.inputs import inputs_of
from study.plan import FitSetting, Plan, Setting, TuningPlan
from study.run import RunOptions, start_materials

TASKS = ("Shapes-Color", "Digits")
RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
CELLS = len(TASKS) * (len(RATES) + len(TASKS))  # of a seed; each seed has a training for each rate, and a test of the best on all tasks


def finished_study(out: Path, seeds: int) -> tuple[list[Unit], Plan, Path, RunOptions]:
    """The units of the study in ``out``, all of them done, and how to run them."""
    plan, options = study_plan(out, seeds), RunOptions(LoadOptions(num_workers=0), device="cpu")
    units, materials = [unit for unit in expand(plan) if unit.of_kind("train")], start_materials(plan, out, options)
    for unit in units:
        for cell in unit.cells:
            write_record(cell, out, inputs_of(cell, unit, materials))
    return units, plan, out, options


def study_plan(out: Path, seeds: int) -> Plan:
    """One tuning of the tiny model at eight learning rates."""
    grid = tuple(Setting(TuningOptions(), FitSetting(lr=lr), ("lr",)) for lr in RATES)
    return Plan(
        path=out / "plan.toml",
        title="",
        about="",
        models=("tiny",),
        tasks=TASKS,
        eval_tasks=TASKS,
        tunings=(TuningPlan("bias", "bias", grid),),
        tuned_models=("tiny",),
        measures=("iimm",),
        components=(),
        data_dir=out / "data",
        prompts=None,
        val_p=0.1,
        published=None,
        seeds=tuple(range(seeds)),
    )


def write_record(cell: Cell, out: Path, inputs: dict[str, Any]) -> None:
    """What a finished cell leaves, its checkpoint as an empty file."""
    results: dict[str, Any] = {"top1": 0.5, "best_validation": 0.5, "checkpoint_sha256": "0" * 64, "seconds": 1.0}
    if cell.kind in PRODUCTS:
        product = out / "products" / f"{cell.name}.safetensors"
        product.parent.mkdir(parents=True, exist_ok=True)
        product.touch()
        results[PRODUCTS[cell.kind]] = product.relative_to(out).as_posix()
    known = {"format": FORMAT, "kind": cell.kind, "key": dict(cell.key), "state": DONE, "error": ""}
    write_json(cell.path(out), {**known, "inputs": inputs, "inputs_sha256": hash_of(inputs), "results": results, "provenance": {}})
