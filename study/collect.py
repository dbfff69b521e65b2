"""From the JSON files of a study's cells to plain tables, one for each kind of cell.

Nothing is recomputed here and nothing is fitted: a row holds what its cell's file says, and the path of that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.cells import DONE, Cell, Unit, hash_of, read_record
from study.collected import Collected
from study.expansion import expand
from study.plan import Plan

Numbers = Mapping[str, Any]
ANSWERS = ("top1", "n_images", "n_correct", "loss", "seconds")  # of an encoder on the images of a task


def collect(plan: Plan, out: Path) -> Collected:
    """Read the files of the plan's cells below ``out``; those that are not there, or damaged, are listed as missing."""
    collected = Collected()
    for unit in expand(plan):
        labels = _labels(unit)
        for cell in unit.cells:
            _add(collected, cell, read_record(cell, out), cell.path(out).relative_to(out).as_posix(), labels)
    return collected


def _add(collected: Collected, cell: Cell, record: Numbers | None, where: str, labels: Mapping[str, str]) -> None:
    tables: Mapping[str, tuple[list[Any], Callable[..., dict[str, Any]]]] = {
        "zero_shot": (collected.zero_shot, _zero_shot),
        "embed": (collected.embeds, _embed),
        "measure": (collected.scores, _score),
        "train": (collected.trainings, _training),
        "test": (collected.tests, _tested),
        "invert": (collected.inversions, _inverted),
        "retrieve": (collected.retrievals, _retrieved),
        "inverted_zero_shot": (collected.inverted_zero_shot, _classified),
        "misalignment": (collected.misalignments, _misaligned),
        "merge": (collected.merges, _merged),
        "merged_test": (collected.merged_tests, _merged_tested),
        "single_test": (collected.single_tests, _single_tested),
    }
    if record is None:
        collected.missing.append(where)
    elif record["state"] != DONE:
        collected.failed.append({"cell": where, "kind": cell.kind, "name": cell.name, "error": record["error"]})
    else:
        table, row = tables[cell.kind]
        table.append({"cell": where, **row(cell.key, record["results"], labels)})


def _labels(unit: Unit) -> dict[str, str]:
    """What the plan calls its settings now: a file may be older than a value that was added to the grid."""
    settings = [cell.key["setting"] for cell in unit.of_kind("train")]
    return {hash_of(_values(setting)): setting["label"] for setting in settings}


def _zero_shot(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "task") | _taken(of, "top1", "mean_per_class", "worst_group", "n_images", "n_skipped", "seconds")


def _embed(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    numbers = _taken(of, "n_images", "n_skipped", "n_classes", "embedding_seconds", "text_seconds")
    return _taken(key, "model", "task") | numbers | {"histograms": of.get("histograms") or {}}


def _score(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    numbers = _taken(of, "score", "stderr", "low", "high", "calculation_seconds")
    said = {"interval": of.get("interval") or "none", "error": of.get("error") or ""}
    return _taken(key, "model", "task", "measure") | numbers | said


def _training(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    known = _taken(of, "best_validation", "best_epoch", "zero_shot_validation", "n_skipped", "seconds", "checkpoint")
    return _run(key) | {"setting": key["setting"]["label"], "values": _values(key["setting"])} | known


def _tested(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    known = _taken(of, "top1", "mean_per_class", "worst_group", "n_images", "n_skipped", "validation", "checkpoint")
    values = _values(of["chosen"])
    chosen = {"chosen": labels.get(hash_of(values), of["chosen"]["label"]), "values": values}
    return _run(key) | _taken(key, "eval_task") | known | chosen


def _inverted(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "task", "side", "inversion") | _taken(
        of, "n_items", "steps", "losses", "curve", "seconds", "seconds_per_item"
    )


def _retrieved(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    asked = _taken(key, "model", "task", "query", "gallery", "inversion", "fuse", "project", "drop")
    numbers = _taken(of, "scores", "n_queries", "n_gallery", "without_positives", "seconds")
    return asked | numbers | {"at_steps": of.get("at_steps") or []}


def _classified(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "task", "inversion") | _taken(of, "top1", "n_images", "seconds")


def _misaligned(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "task", "inversion") | _taken(of, "histograms", "overlap", "gaps", "at_steps")


def _merged(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    told = {"data": of.get("data") or "none", "learnt": of.get("learnt") or {}, "transductive": bool(of.get("transductive"))}
    return _taken(key, "model", "merge", "seed") | {"per_model": "files" in of} | _taken(of, "parameters", "seconds") | told


def _merged_tested(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "merge", "seed", "eval_task") | _taken(of, *ANSWERS)


def _single_tested(key: Numbers, of: Numbers, labels: Mapping[str, str]) -> dict[str, Any]:
    return _taken(key, "model", "fine_tune", "seed", "eval_task") | _taken(of, *ANSWERS)


def _run(key: Numbers) -> dict[str, Any]:
    return {"model": key["model"], "tuning": key["tuning_name"], "task": key["task"], "seed": key["seed"]}


def _values(setting: Numbers) -> dict[str, Any]:
    return {name: value for name, value in setting.items() if name != "label"}


def _taken(of: Numbers, *names: str) -> dict[str, Any]:
    return {name: of.get(name) for name in names}
