"""What the cells of merging depend on besides their keys, and where the models lie that each of them merges or tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from models import huggingface, zoo
from study.cells import DONE, Cell, Unit, read_record
from study.materials import Materials
from study.merging_cells import merge_of, train_of
from study.plan_merging import MergingPlan, corrupted

WEIGHTS = (".safetensors", ".bin", ".json")  # of a folder, the files that decide a model
DATA_SPLIT, ADAPT_SPLIT = "train", "test"  # what images are drawn from, and which are adapted to


def merging_of(materials: Materials) -> MergingPlan:
    """What the plan says of merging; only a plan that does has cells that ask."""
    assert materials.plan.merging is not None
    return materials.plan.merging


def source_of(model: str, task: str, unit: Unit, materials: Materials) -> str:
    """The fine-tuned model of a task, as merge.py takes it; :class:`UserError` for one whose training has not finished."""
    if train_of(unit, task) is None:
        return merging_of(materials).source(model, task)
    return str(materials.out / _finished(unit, task, materials.out)["checkpoint"])


def of_single_test(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """The base, whose text tower answers; the fine-tuned model; images and prompts."""
    key = cell.key
    tuned = _sha256(key["model"], key["fine_tune"], unit, materials)
    return {"weights_sha256": materials.weights(key["model"]), "model_sha256": tuned, **materials.images(key["eval_task"], "test")}


def of_merge(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """The base, the fine-tuned models, and the images that the method looks at."""
    model, merge = cell.key["model"], cell.key["merge"]
    models = {task: _sha256(model, task, unit, materials) for task in merge["tasks"]}
    known: dict[str, Any] = {"weights_sha256": materials.weights(model), "models": models}
    if images := images_of(cell):
        known["images"] = {task: materials.images(*where) for task, where in images.items()}
    return known


def of_merged_test(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """What was merged; images and prompts."""
    record = read_record(merge_of(unit, cell), materials.out)
    if record is None or record["state"] != DONE:
        raise UserError(f"The merge of '{unit.name}' has not finished, so there is nothing to test.")
    return {"merge_sha256": record["inputs_sha256"], **materials.images(cell.key["eval_task"], "test")}


def images_of(cell: Cell) -> dict[str, tuple[str, str]]:
    """{task: (data set, split)} that a merge looks at; none for a method without data."""
    from merging.table import METHODS

    merge = cell.key["merge"]
    method, adapt = METHODS[merge["method"]], merge["adapt"]
    if method.data == "none":
        return {}
    split = ADAPT_SPLIT if method.transductive else DATA_SPLIT
    return {task: (corrupted(task, adapt) if adapt else task, split) for task in merge["tasks"]}


def _finished(unit: Unit, task: str, out: Path) -> dict[str, Any]:
    """The results of the training of a task's model."""
    cell = train_of(unit, task)
    record = None if cell is None else read_record(cell, out)
    if record is None or record["state"] != DONE:
        raise UserError(f"The training on '{task}' of '{unit.name}' has not finished, so there is nothing to merge or test.")
    return dict(record["results"])


def _sha256(model: str, task: str, unit: Unit, materials: Materials) -> str:
    """SHA-256 of a fine-tuned model: of a training's tensors, of a model of the zoo its weights, of anything else the files."""
    if train_of(unit, task) is not None:
        return str(_finished(unit, task, materials.out)["checkpoint_sha256"])
    spelled = source_of(model, task, unit, materials)
    if (files := _files(spelled)) is None:
        return materials.weights(spelled)
    return materials.files_sha256(f"{model}_{task}", files)


def _files(spelled: str) -> list[Path] | None:
    """The files of a source that is a file, a folder or a hub id; None for a model of the zoo. UserError for what is not there."""
    path = Path(spelled).expanduser()
    if path.suffix == ".json" and path.is_file():
        path = path.parent
    if path.is_file():
        return [path]
    if not path.is_dir():
        if path.suffix == ".safetensors":
            raise UserError(f"No such file: '{path}'.")
        if zoo.resolve(spelled).kind != "huggingface":
            return None
        path = huggingface.resolve(spelled)
    return [file for file in sorted(path.iterdir()) if file.suffix in WEIGHTS]
