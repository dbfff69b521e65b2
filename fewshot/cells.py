"""One result each: a method, made from one draw and tested on one set of images; all that decides it, and its JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.provenance import now, peak_memory_mib, versions
from datasets.task import Task
from engine.evaluate import accuracies_of, check_answered
from fewshot.data import Features, FewShotData
from fewshot.features import ADAPTED, ORIGINAL, Towers
from fewshot.method import Fitted, Method
from fewshot.options import FewShotOptions
from fewshot.protocol import Draw, Splits
from fewshot.results import Result, cell_path
from fewshot.tables import ZERO_SHOT

VERSION = 1  # raise it whenever a method can give another result for the same inputs


@dataclass(frozen=True)
class Request:
    """What is asked of every data set of a run."""

    methods: tuple[Method, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    order: str
    val_shots: str | int
    views: int
    options: FewShotOptions
    out: Path


@dataclass(frozen=True)
class Target:
    """Images to test on: those of the data set itself, or others; ``columns`` [C'] tells which of the C logits are their classes'."""

    task: Task
    columns: NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """``inputs`` is all that decides the result; ``draw`` is None for zero-shot classification, which needs none."""

    method: Method
    draw: Draw | None
    target: Target
    inputs: Mapping[str, Any]
    path: Path


class Cells:
    """The cells that a request means for one data set."""

    def __init__(self, towers: Towers, splits: Splits, request: Request) -> None:
        self.towers, self.splits, self.request = towers, splits, request
        self._fingerprint = cache(lambda split, rows: splits.split(split).subset(np.frombuffer(rows, np.int64)).fingerprint)

    def all(self, draws: list[Draw], targets: list[Target]) -> Iterator[Cell]:
        """Draw by draw, method by method, set by set; zero-shot classification once, first."""
        for method in self.request.methods:
            if method.name == ZERO_SHOT:
                yield from (self._cell(method, None, each) for each in targets)
        for draw in draws:
            for method in self.request.methods:
                if method.name != ZERO_SHOT:
                    yield from (self._cell(method, draw, each) for each in targets)

    def _cell(self, method: Method, draw: Draw | None, target: Target) -> Cell:
        inputs = self._inputs(method, draw, target)
        return Cell(method, draw, target, inputs, cell_path(self.request.out, inputs))

    def _inputs(self, method: Method, draw: Draw | None, target: Target) -> dict[str, Any]:
        task, towers = self.splits.test, self.towers
        inputs: dict[str, Any] = {
            **{"version": VERSION, "dataset": task.name, "test": target.task.name, "method": method.name},
            **{"shots": draw.shots if draw else 0, "seed": draw.seed if draw else 0},
            **{"test_fingerprint": target.task.fingerprint, "decode": towers.load.decode},
            "classes_sha256": _sha256([task.classnames, task.templates, target.columns.tolist()]),
            "original": towers.model_identity(ORIGINAL),
            "adapted": towers.model_identity(ADAPTED) if method.needs_adapter else None,
        }
        if draw is None:
            return inputs
        return inputs | {
            "cache_fingerprint": self._fingerprint("train", draw.cache.tobytes()),
            "val_fingerprint": self._fingerprint(draw.val_split, draw.val.tobytes()),
            "views": self.request.views,
            "options": asdict(replace(self.request.options, seed=draw.seed, device="")),
        }


def result_of(cell: Cell, request: Request, towers: Towers, data: FewShotData, fitted: Fitted, test: Features, seconds: float) -> Result:
    """The content of a cell's JSON; ``test`` are the features of its images."""
    task, draw = cell.target.task, cell.draw
    n, accuracy, mean_per_class, correct = scores(fitted, test, cell.target)
    return {
        **{"dataset": cell.inputs["dataset"], "test": task.name, "method": cell.method.name},
        **{"shots": draw.shots if draw else 0, "seed": draw.seed if draw else 0},
        **{"accuracy": accuracy, "correct": correct, "n_test": n, "mean_per_class": mean_per_class},
        "val_correct": fitted.val_correct,
        "n_val": 0 if data.val is None else len(data.val),
        "val_split": draw.val_split if draw else "",
        "n_cache": len(data.cache),
        "hyperparameters": dict(fitted.hyperparameters),
        "facts": dict(fitted.facts),
        **{"model": towers.selection.model, "adapter": towers.selection.checkpoint if cell.method.needs_adapter else ""},
        **dict.fromkeys(("views", "order", "val_shots", "search", "grid", "as_released"), ""),
        **(_settings(request) if draw else {}),
        "fit_seconds": round(seconds, 3),
        **{"precision": towers.runtime.precision, "device": str(towers.runtime.device), "processes": towers.runtime.world},
        **{"peak_memory_mib": peak_memory_mib(), "created": now(), "versions": versions(), "inputs": dict(cell.inputs)},
    }


def _settings(request: Request) -> dict[str, Any]:
    """What decides the results of draws, in words."""
    options = request.options
    protocol = {"views": request.views, "order": request.order, "val_shots": request.val_shots}
    return protocol | {"search": options.search, "grid": options.grid, "as_released": options.as_released}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def scores(fitted: Fitted, test: Features, target: Target) -> tuple[int, float, float, int]:
    """(images, accuracy, mean of the classes' accuracies, images that are classified right), accuracies as fractions."""
    with torch.inference_mode():
        logits = fitted.logits(test)[:, torch.from_numpy(target.columns).to(test.labels.device)]
        check_answered(int((~logits.isfinite().all(dim=1)).sum()), target.task)
        predicted = logits.argmax(dim=1)
    n, accuracy, mean_per_class = accuracies_of(predicted.cpu().numpy(), test.labels.cpu().numpy(), len(target.columns))
    return n, accuracy, mean_per_class, int((predicted == test.labels).sum())
