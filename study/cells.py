"""The cells of a study: every piece of work of a plan, its name, its file and its state.

A cell has one result file, ``OUT/cells/<kind>/<name>.json``, written once it is finished or has failed. Its name is that of what
is computed (model, task, setting); what it is computed from (weights, images, code) is recorded in the file as its *inputs*,
and a finished cell counts as done for as long as they are the same. Cells that need one another make a :class:`Unit`; units are
independent of each other, so they can be shared out over processes and machines in any way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import exact, read_json, slug
from datasets.naming import parse_name

FORMAT = "clipscope-cell/1"
PARTS = {"state", "error", "inputs_sha256", "results"}  # what is read of a record, besides its format
KINDS = (
    *("zero_shot", "embed", "measure", "train", "test"),
    *("invert", "retrieve", "misalignment", "inverted_zero_shot"),
    *("single_test", "merge", "merged_test"),
)
NEEDS = {  # the kind of cells, earlier in the same unit, that a cell cannot do without
    **{"measure": "embed", "test": "train"},
    **{"retrieve": "invert", "misalignment": "invert", "inverted_zero_shot": "invert"},  # retrieval of native features needs none
    **{"single_test": "train", "merge": "train", "merged_test": "merge"},  # models that were not trained here need no training
}
PRODUCTS = {"embed": "file", "train": "checkpoint", "invert": "folder", "merge": "file"}  # of a kind, the result that names what it wrote
DONE, FAILED, TO_DO, CHANGED = "done", "failed", "to do", "changed"
LONGEST = 140  # characters of the readable part of a file name


@dataclass(frozen=True)
class Cell:
    """One piece of work. ``key`` says of what, in JSON's types.

    ==================  ==================================================================================================
    kind                key
    ==================  ==================================================================================================
    zero_shot           model, task: accuracy of the untuned model on the test images
    embed               model, task: embeddings of the training images and of the classes
    measure             model, task, measure: its score on those embeddings
    train               model, tuning_name, tuning, setting, task, seed: one training; ``setting`` has its label and all values
    test                model, tuning_name, task, seed, eval_task: accuracy on ``eval_task``'s test images after the best of these
    invert              model, task, side, inversion: pseudo-tokens of the queries or of the class names; ``inversion`` has the
                        kind (oti or ovi) and all values
    retrieve            model, task, query, gallery, perhaps inversion, fuse, project, drop: scores of the rankings
    misalignment        model, task, inversion: histograms of cosines
    inverted_zero_shot  model, task, inversion: accuracy with inverted images, or with inverted class names
    single_test         model, fine_tune, eval_task, perhaps seed: accuracy of the model that was tuned on ``fine_tune``
    merge               model, merge, seed: a merged encoder, or one for each task; ``merge`` has label, method, options, tasks, adapt
                        (the corruption of the images that it adapts to, if any) and perhaps per_model
    merged_test         model, merge, eval_task, seed: accuracy of the merged encoder
    ==================  ==================================================================================================
    """

    kind: str
    key: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its file: what it is about, and a hash of its key.

        The label of a setting has no part in it: it says what varies within the grid, so a longer grid changes it.
        """
        counted = {**self.key, "setting": without_label(self.key["setting"])} if "setting" in self.key else self.key
        return f"{self.readable}-{hash_of(counted)[:8]}"

    @property
    def readable(self) -> str:
        """The name without the hash."""
        key = self.key
        parts = [short(key["model"]), slug(key.get("tuning_name", "")) if "tuning_name" in key else "", *_merging_parts(key)]
        parts += [short(key["task"]) if "task" in key else "", key.get("measure", "")]
        parts += [f"to_{short(key['eval_task'])}" if "eval_task" in key else "", *_inversion_parts(key)]
        parts += [f"lr{exact(key['setting']['lr'])}"] if "setting" in key else []
        parts += [f"seed{key['seed']}"] if "seed" in key else []
        return "_".join(part for part in parts if part)[:LONGEST]

    def __str__(self) -> str:
        """As progress is told: ``train tiny lora Digits lr0.01``."""
        key = self.key
        words = [self.kind, short(key["model"]), key.get("tuning_name"), *_merging_parts(key)]
        words += [short(key["task"]) if "task" in key else "", key.get("measure")]
        words += ["on", short(key["eval_task"])] if "eval_task" in key else []
        words += [key["setting"]["label"]] if "setting" in key else []
        words += [f"seed {key['seed']}"] if key.get("seed") else []
        words += _inversion_words(key)
        return " ".join(word for word in words if word)

    def path(self, out: Path) -> Path:
        """Its result file below the study's folder."""
        return out / "cells" / self.kind / f"{self.name}.json"


def _inversion_parts(key: Mapping[str, Any]) -> list[str]:
    """What tells the cells of inversion apart, for a file name."""
    parts = [f"{key['query']}-to-{key['gallery']}"] if "query" in key else []
    parts += [key.get("project", ""), f"fuse{exact(key['fuse'])}" if "fuse" in key else ""]
    of = key.get("inversion")
    return [*parts, f"{of['kind']}-r{of['num_pseudo_tokens']}", f"seed{of['seed']}"] if of else parts


def _merging_parts(key: Mapping[str, Any]) -> list[str]:
    """What tells the cells of merging apart, but for most options, which the hash of the name does."""
    parts = [f"single-{short(key['fine_tune'])}"] if "fine_tune" in key else []
    if of := key.get("merge"):
        parts += [of["label"], f"scaling{exact(of['options']['scaling'])}" if "scaling" in of["options"] else ""]
        parts += [f"adapted-to-{of['adapt']}" if of["adapt"] else ""]
    return parts


def _inversion_words(key: Mapping[str, Any]) -> list[str]:
    """The same, to be read."""
    words = [f"{key['query']} to {key['gallery']}"] if "query" in key else []
    words += [key["project"]] if "project" in key else []
    words += [f"fused {exact(key['fuse'])}"] if "fuse" in key else []
    of = key.get("inversion")
    if of and "query" not in key:
        words.append(of["kind"])
    return [*words, f"R={of['num_pseudo_tokens']} seed {of['seed']}"] if of else words


def short(name: str) -> str:
    """The last part of a path or of a name on a hub; it must depend on nothing but the name."""
    is_path = name.startswith(("local-dir:", "hf-hub:", "/", ".", "~")) or parse_name(name).scheme is not None
    return slug(name.rstrip("/").rsplit("/", 1)[-1] if is_path else name)


@dataclass(frozen=True)
class Unit:
    """Cells that are worked on by one process, in this order."""

    name: str
    cells: tuple[Cell, ...]

    def of_kind(self, kind: str) -> list[Cell]:
        """Its cells of one kind."""
        return [cell for cell in self.cells if cell.kind == kind]

    def only(self, pattern: str) -> Unit:
        """The unit with the cells whose name, ``kind/name``, or unit the shell pattern matches, and with those that they need."""
        if fnmatchcase(self.name, pattern):
            return self
        wanted = [cell for cell in self.cells if any(fnmatchcase(name, pattern) for name in (cell.name, f"{cell.kind}/{cell.name}"))]
        while more := [cell for cell in self.cells if cell not in wanted and any(needs(other, cell) for other in wanted)]:
            wanted += more
        return replace(self, cells=tuple(cell for cell in self.cells if cell in wanted))


def needs(cell: Cell, earlier: Cell) -> bool:
    """Whether a cell cannot do without another of its unit: all of the needed kind, of models and merges the one that it is of."""
    if NEEDS.get(cell.kind) != earlier.kind:
        return False
    if cell.kind == "merged_test":
        return bool(cell.key["merge"] == earlier.key["merge"])
    return cell.kind != "single_test" or bool(cell.key["fine_tune"] == earlier.key["task"])


def without_label(setting: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a setting alone."""
    return {name: value for name, value in setting.items() if name != "label"}


def select(units: list[Unit], only: str | None = None, shard: tuple[int, int] | None = None) -> list[Unit]:
    """The units that ``--only`` and ``--shard`` (i, n) leave: every n-th one from the i-th on, which spreads the long ones."""
    if only is not None:
        units = [unit for whole in units if (unit := whole.only(only)).cells]
        if not units:
            raise UserError(f"No cell is called '{only}'; --dry-run lists the names, and '*{only.strip('*')}*' would match within one.")
    return units if shard is None else units[shard[0] - 1 :: shard[1]]


def read_record(cell: Cell, out: Path) -> dict[str, Any] | None:
    """What the cell's file says; None when there is none, or none that can be read, so that the cell is worked on anew."""
    try:
        record = read_json(cell.path(out))
    except UserError:
        return None
    whole = isinstance(record, dict) and record.get("format") == FORMAT and record.keys() >= PARTS and isinstance(record["results"], dict)
    return record if whole else None


def state_of(record: Mapping[str, Any] | None, inputs: Mapping[str, Any] | None) -> str:
    """Whether there is work to do; ``inputs`` are those of now, None when they cannot be had (then the file is believed)."""
    if record is None:
        return TO_DO
    if inputs is not None and record["inputs_sha256"] != hash_of(inputs):
        return CHANGED
    return DONE if record["state"] == DONE else FAILED


def products_of(cell: Cell, record: Mapping[str, Any]) -> list[str]:
    """The files and folders that a finished cell has written for others, as paths below the study's folder."""
    results, name = record["results"], PRODUCTS.get(cell.kind, "")
    return [*([results[name]] if name in results else []), *results.get("files", {}).values()]


def hash_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
