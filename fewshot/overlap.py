"""Overlap and variance of the test images of a data set, before and after the adapter: a JSON each, ``OUT/overlap/DATASET-HASH.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.errors import UserError
from common.files import read_json, write_json
from common.provenance import now, versions
from common.stages import staged
from common.text import aligned
from datasets.registry import task_slug
from datasets.task import Task
from fewshot.features import ADAPTED, ORIGINAL, Towers
from fewshot.intra_modal import intra_modal
from metrics.statistics import MetricError

MOST = 10_000  # images: the pairs of more would take minutes, and these are 50 million already
MEASURES = ("overlap", "proxy_a_distance", "auroc", "total_variance", "within_variance", "between_variance")
Overlap = dict[str, Any]


def measured(towers: Towers, task: Task, out: Path) -> Overlap:
    """The measures of ``task`` by kind of features, ``{"original": {...}, "adapted": {...}}``, made or read.

    They are of all images, or of 10,000 drawn by seed 0 of more. A measure that is undefined, as with one image per class, is absent.
    """
    kinds = [kind for kind in (ORIGINAL, ADAPTED) if kind in towers.kinds]
    inputs = {"dataset": task.name, "split": task.split} | {kind: towers.identity(kind, task) for kind in kinds}
    mark = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    path = out / "overlap" / f"{task_slug(task.name)}-{mark}.json"
    known = _read(path, inputs) if towers.runtime.is_main else None
    if not towers.runtime.gather_objects([known is not None])[0]:
        known = _measure(towers, task, inputs)
        if towers.runtime.is_main:
            write_json(path, known)
    return known or {}


def _read(path: Path, inputs: dict[str, Any]) -> Overlap | None:
    try:
        known = read_json(path) if path.is_file() else None
    except UserError:
        return None
    return known if isinstance(known, dict) and known.get("inputs") == inputs else None


def _measure(towers: Towers, task: Task, inputs: dict[str, Any]) -> Overlap:
    """All processes make the features; the main one measures."""
    features, _ = towers.features(task)
    some = np.random.default_rng(0).permutation(len(features.labels))[:MOST]
    found: Overlap = {"dataset": task.name, "split": task.split, "n": len(some), "classes": len(task.classnames)}
    labels = features.labels.cpu().numpy()[some]
    if towers.runtime.is_main:
        found[ORIGINAL] = _of(features.original, some, labels)
        if features.adapted is not None:
            found[ADAPTED] = _of(features.adapted, some, labels)
    return found | {"inputs": inputs, "created": now(), "versions": versions()}


@staged("overlap")
def _of(features: Tensor, some: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    try:
        return asdict(intra_modal(features.cpu().numpy()[some], labels))
    except MetricError:  # no two images of one class, or of different ones
        return {}


def rows(overlaps: Sequence[Overlap]) -> list[dict[str, Any]]:
    """``overlap.csv``: one row per data set and kind of features."""
    return [
        {"dataset": of["dataset"], "split": of["split"], "n": of["n"], "features": kind}
        | {name: of[kind].get(name, "") for name in MEASURES}
        for of in overlaps
        for kind in (ORIGINAL, ADAPTED)
        if kind in of
    ]


def before_and_after(overlaps: Sequence[Overlap]) -> dict[str, tuple[float, float]]:
    """{data set: (overlap before, overlap after)} of those that have both."""
    both = [of for of in overlaps if of.get(ORIGINAL) and of.get(ADAPTED)]
    return {of["dataset"]: (of[ORIGINAL]["overlap"], of[ADAPTED]["overlap"]) for of in both}


def table(overlaps: Sequence[Overlap]) -> str:
    """What is printed: a line for each data set and kind of features."""
    heads = ["test images", "overlap", "PAD", "AUROC", "variance", "within", "between"]
    lines = [heads]
    for row in rows(overlaps):
        name = f"{row['dataset']}, {row['features']}"
        lines.append([name, *(f"{row[measure]:.4f}" if row[measure] != "" else "-" for measure in MEASURES)])
    return aligned(lines)
