"""What the cells of inversion depend on besides their keys, and which items each of them inverts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from common.errors import UserError
from datasets.retrieval.collection import Collection
from inversion.items import Items, class_prompts
from study.cells import DONE, Cell, Unit, read_record
from study.inversion_cells import CLASSES, QUERY
from study.materials import Materials


def inverted_items(cell: Cell, materials: Materials) -> Items:
    """The class names, as prompts; the queries; or, of a data set that is only classified, its test images, which are the same."""
    key, plan = cell.key, materials.plan.inversion
    if key["side"] == CLASSES:
        task = materials.task(key["task"], "test")
        return Items.every(class_prompts(task.classnames, key["inversion"]["template"]), task.name, task.split, CLASSES)
    if plan is not None and key["task"] in (*plan.image_tasks, *plan.text_tasks):
        searched = materials.retrieval(key["task"])
        return Items.every(searched.query, searched.name, searched.split, QUERY)
    materials.fingerprint(key["task"], "test")  # looked up, it need not be made
    task = materials.task(key["task"], "test")
    collection = Collection.of_task(task)
    collection.__dict__["fingerprint"] = task.fingerprint
    return Items.every(collection, task.name, task.split, QUERY)


def of_invert(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """Weights and items."""
    items = inverted_items(cell, materials)
    return {"weights_sha256": materials.weights(cell.key["model"]), "fingerprint": items.collection.fingerprint}


def of_retrieve(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """Weights, both sides with what is relevant to what, and what the pseudo-tokens were made from."""
    task = materials.retrieval(cell.key["task"])
    known = {"weights_sha256": materials.weights(cell.key["model"]), "fingerprint": task.fingerprint}
    return {**known, **_learnt(unit, materials.out)} if cell.key.get("inversion") else known


def of_misalignment(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """The queries and their inversions; the texts of their classes."""
    task = materials.retrieval(cell.key["task"])
    classes = hashlib.sha256(json.dumps(task.query.classnames).encode()).hexdigest()
    return {"fingerprint": task.query.fingerprint, "classnames_sha256": classes, **_learnt(unit, materials.out)}


def of_inverted_zero_shot(cell: Cell, unit: Unit, materials: Materials) -> dict[str, Any]:
    """The images, class names and prompts; and what the pseudo-tokens were made from."""
    return {**materials.images(cell.key["task"], "test"), **_learnt(unit, materials.out)}


def _learnt(unit: Unit, out: Path) -> dict[str, str]:
    """What the unit's pseudo-tokens were made from; a :class:`UserError` when they are not there."""
    (cell,) = unit.of_kind("invert")
    record = read_record(cell, out)
    if record is None or record["state"] != DONE:
        raise UserError(f"The inversion of '{unit.name}' has not finished, so there is nothing to search or classify with.")
    return {"inversion_sha256": record["inputs_sha256"]}
