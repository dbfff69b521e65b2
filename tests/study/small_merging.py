"""A finished study of merging, MADE UP, written as the cells' JSON files that a real run leaves. None of it is a measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.cells import Cell
from study.expansion import expand
from study.plan import Plan
from study.plan_file import read_plan
from study.plan_merging import clean, corruption_of
from tests.study.small_study import write_cell

IMAGES = 1000
METHODS = """
[merging.methods.simple_average]
[merging.methods.task_arithmetic]
scaling = [0.1, 0.3, 0.5]
[merging.methods.emr_own]
method = "emr"
per_model = true
[merging.methods.fisher]
[merging.methods.layer_wise_adamerging]
"""
TOP = 'title = "Small"\nabout = "Made-up numbers."\nmodels = ["{model}"]\n'
BASE, LOST = 0.4, 0.1  # top-1 accuracies: of the base; what a corruption takes
GAINS = {"simple_average": 0.1, "task_arithmetic": 0.2, "emr": 0.4, "fisher": 0.25, "layer_wise_adamerging": 0.3}
OWN, ELSEWHERE, ADAPTED = 0.5, -0.05, 0.08  # of a fine-tune on its task and on others; of adapting to corrupted images


def small_plan(folder: Path, merging: str, model: str = "clip", methods: str = METHODS, top: str = "") -> Plan:
    """A plan of these lines of [merging], methods and keys above them."""
    path = folder / "small.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{TOP.format(model=model)}{top}\n[merging]\nfine_tunes = "x/{{task}}"\n{merging}\n{methods}')
    return read_plan(path)


def write_small_merging(out: Path, plan: Plan, skip: Callable[[Cell], bool] = lambda cell: False) -> None:
    """Write the JSON file of every cell of the plan below ``out`` but those to skip."""
    for unit in expand(plan):
        for cell in unit.cells:
            if not skip(cell):
                write_cell(cell, out, _RESULTS[cell.kind](cell.key))


def accuracy(data_set: str, gain: float = 0.0, adapted: bool = False) -> float:
    """The made-up share of right answers of an encoder that is so much better than the base."""
    corrupted = corruption_of(data_set) is not None
    known = BASE + gain + 0.01 * (len(clean(data_set)) % 5)
    return round(known - LOST * corrupted + ADAPTED * (corrupted and adapted), 4)


def _answers(top1: float) -> dict[str, Any]:
    return {"top1": top1, "n_images": IMAGES, "n_correct": round(top1 * IMAGES), "loss": 1.5, "seconds": 2.0}


def _merge(key: Mapping[str, Any]) -> dict[str, Any]:
    merge = key["merge"]
    file = {"files": {task: f"merges/{task}.safetensors" for task in merge["tasks"]}} if merge.get("per_model") else {"file": "merges/x"}
    transductive = merge["method"] == "layer_wise_adamerging"
    return {**file, "seconds": 3.0, "transductive": transductive, "data": "none", "parameters": 87_456_000, "learnt": {}}


def merged_accuracy(key: Mapping[str, Any]) -> float:
    """Of a merge: best at a scaling of 0.3."""
    merge = key["merge"]
    scaling = merge["options"].get("scaling") if merge["method"] == "task_arithmetic" else 0.3
    return accuracy(key["eval_task"], GAINS[merge["method"]] - abs(scaling - 0.3) + 0.02 * key["seed"], merge.get("adapt") is not None)


def _single(key: Mapping[str, Any]) -> float:
    return accuracy(key["eval_task"], OWN if clean(key["eval_task"]) == key["fine_tune"] else ELSEWHERE)


_RESULTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "zero_shot": lambda key: {"top1": accuracy(key["task"]), "n_images": IMAGES, "seconds": 1.0},
    "merge": _merge,
    "merged_test": lambda key: _answers(merged_accuracy(key)),
    "single_test": lambda key: _answers(_single(key)),
}
