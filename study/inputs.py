"""What a cell depends on besides its key: weights, images, prompts, code. A cell whose inputs have changed is worked on anew."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import metrics
from common.errors import UserError
from metrics.metric import Metric
from metrics.table import METRICS
from study import inversion_inputs, merging_inputs
from study.cells import DONE, Cell, Unit, hash_of, read_record, without_label
from study.materials import Materials

UNCERTAINTY = "metrics.uncertainty"  # decides the interval of every measure


def inputs_of(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """The inputs of a cell as they are now, in JSON's types.

    Raises whatever keeps them from being known, e.g. :class:`UserError` for images that are not there.
    """
    return _INPUTS[cell.kind](cell, unit, materials)


def _zero_shot(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    return _model_and_task(cell, materials, "test")


def _embed(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    return _model_and_task(cell, materials, "train")


def _measure(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    return {**_model_and_task(cell, materials, "train"), "measure_sha256": code_of(METRICS[cell.key["measure"]])}


def _train(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    validation = materials.fingerprint(cell.key["task"], "val")
    return {**_model_and_task(cell, materials, "train"), "validation_fingerprint": validation}


def _test(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    train, record = chosen_training(unit, materials.out)
    chosen = {"setting": without_label(train.key["setting"]), "checkpoint_sha256": record["results"]["checkpoint_sha256"]}
    return {**chosen, **materials.images(cell.key["eval_task"], "test")}


def _model_and_task(cell: Cell, materials: Materials, split: str) -> dict[str, Any]:
    return {"weights_sha256": materials.weights(cell.key["model"]), **materials.images(cell.key["task"], split)}


_INPUTS: Mapping[str, Callable[[Cell, Unit, Materials], dict[str, Any]]] = {
    **{"zero_shot": _zero_shot, "embed": _embed, "measure": _measure, "train": _train, "test": _test},
    **{"invert": inversion_inputs.of_invert, "retrieve": inversion_inputs.of_retrieve},
    **{"misalignment": inversion_inputs.of_misalignment, "inverted_zero_shot": inversion_inputs.of_inverted_zero_shot},
    **{"single_test": merging_inputs.of_single_test, "merge": merging_inputs.of_merge, "merged_test": merging_inputs.of_merged_test},
}


def chosen_training(unit: Unit, out: Path) -> tuple[Cell, dict[str, Any]]:
    """The finished training of a unit with the best validation accuracy, the first of the grid on a tie, and its record."""
    records = [(cell, read_record(cell, out)) for cell in unit.of_kind("train")]
    finished = [(cell, record) for cell, record in records if record is not None and record["state"] == DONE]
    if not finished:
        raise UserError(f"None of the {len(records)} trainings of '{unit.name}' has finished, so there is nothing to test.")
    return max(finished, key=lambda pair: pair[1]["results"]["best_validation"])


@cache
def code_of(metric: Metric) -> str:
    """SHA-256 of the code of a measure: of the modules of :mod:`metrics` that it and its interval are made of."""
    files = sorted({file for module in (_module_of(metric), UNCERTAINTY) for file in _with_imports(module)})
    return hash_of({file: (_FOLDER / file).read_text(encoding="utf-8") for file in files})


_FOLDER = Path(metrics.__path__[0])


def _module_of(metric: Metric) -> str:
    """The module that a measure's entry stands in."""
    loaded = ((name, module) for name, module in sys.modules.items() if name.startswith("metrics."))
    return next(name for name, module in loaded if metric in (getattr(module, "METRIC", None), *_tuple(getattr(module, "METRICS", ()))))


def _tuple(entries: Any) -> tuple[Any, ...]:
    return entries if isinstance(entries, tuple) else ()  # metrics.table has a dictionary of that name


def _with_imports(module: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """The files of a module and of all modules of the package that it imports, directly or not."""
    file = f"{module.removeprefix('metrics.')}.py"
    if file in seen or not (_FOLDER / file).exists():
        return seen
    seen |= {file}
    for node in ast.walk(ast.parse((_FOLDER / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metrics":
            names = [str(node.module)] if node.module != "metrics" else [f"metrics.{alias.name}" for alias in node.names]
            for name in names:
                seen = _with_imports(name, seen)
    return seen
