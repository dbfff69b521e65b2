"""Features of the images of a task in a file, under the hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from common.errors import UserError
from datasets.registry import task_slug
from datasets.task import Task
from models.tensors import read_safetensors, write_safetensors

FORMAT = "clipscope-few-shot-features/1"
UNREADABLE = "unreadable"  # the header's key beside the identity: what was met, not what decides


@dataclass(frozen=True)
class Rows:
    """Unit features float32 [n, D] of the images at ``indices`` int64 [n] of a task; why the others could not be read, by sample id."""

    features: Tensor
    indices: Tensor
    unreadable: dict[str, str] = field(default_factory=dict)


def keep(folder: Path, task: Task, identity: dict[str, str], rows: Rows) -> None:
    """Write ``rows`` to the file that ``identity`` names; atomic."""
    header = identity | {"format": FORMAT, UNREADABLE: json.dumps(rows.unreadable)}
    write_safetensors(path_of(folder, task, identity), {"features": rows.features, "indices": rows.indices}, header)


def kept(folder: Path, task: Task, identity: dict[str, str]) -> Rows | None:
    """The rows of that file; None when it is not there, is damaged or is another's: then they are made anew."""
    path = path_of(folder, task, identity)
    try:
        tensors, header = read_safetensors(path)
    except UserError:
        return None
    unreadable = header.pop(UNREADABLE, "{}")
    if header != identity | {"format": FORMAT} or {*tensors} != {"features", "indices"}:
        return None
    return Rows(**tensors, unreadable=json.loads(unreadable))


def path_of(folder: Path, task: Task, identity: dict[str, str]) -> Path:
    """The file of these features in ``folder``, whether it is there or not."""
    mark = hashlib.sha256(json.dumps([FORMAT, identity], sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{task_slug(task.name)}_{task.split}_{identity['kind']}-{mark}.safetensors"
