"""A finished study, MADE UP: 2 models, 2 tunings, 9 tasks, 2 seeds, written as the cells' JSON files that a real run leaves.

Scores and outcomes follow lines with seeded errors, so a test knows what must come out. None of it is a measurement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.tuning_options import TuningOptions
from study.cells import Cell, Unit
from study.expansion import expand
from study.plan import FitSetting, Plan, Setting, TuningPlan

MODELS = ("clip", "siglip")
TASKS = ("Cars", "CIFAR100", "DTD", "EuroSAT", "GTSRB", "MNIST", "RESISC45", "SUN397", "SVHN")
MEASURES = ("iimm", "image_image", "wrong_label", "text_text", "gbc_diagonal", "hscore")
COMPONENTS = ("image_image", "wrong_label", "text_text")
HISTOGRAMS = {"same_class": 0.75, "different_class": 0.55, "image_text_right": 0.28, "image_text_wrong": 0.2}
OWN_SLOPE = {"full": 2.0, "lora": 1.6}  # gain = INTERCEPT + slope (iimm - 0.2), with an error of up to SCATTER / 2
INTERCEPT, SCATTER = 0.15, 0.2


def small_plan(path: Path = Path("plans/small.toml"), **changes: Any) -> Plan:
    """The plan of the made-up study; ``changes`` replace fields."""
    known: dict[str, Any] = {
        **{"path": path, "title": "A small study", "about": "Made-up numbers.", "models": MODELS, "tasks": TASKS, "eval_tasks": TASKS},
        **{"tunings": (_tuning("full", (1e-3, 1e-4)), _tuning("lora", (1e-2, 1e-3))), "tuned_models": MODELS, "seeds": (0, 1)},
        **{"measures": MEASURES, "predictor": "iimm", "components": COMPONENTS},
        **{"data_dir": Path("data"), "prompts": None, "val_p": 0.1, "published": "iimm"},
    }
    return Plan(**{**known, **changes})


def _tuning(name: str, rates: tuple[float, ...]) -> TuningPlan:
    return TuningPlan(name, name, tuple(Setting(TuningOptions(), FitSetting(lr=lr), ("lr",)) for lr in rates))


def iimm_of(model: str, task: str) -> float:
    """The made-up IIMM, between 0.2 and 0.5."""
    return 0.2 + 0.3 * _drawn("iimm", model, task)


def zero_shot_of(model: str, task: str) -> float:
    """The made-up zero-shot accuracy, lower where the IIMM is high."""
    return round(0.85 - 1.5 * (iimm_of(model, task) - 0.2) + 0.1 * _drawn("zero_shot", model, task), 4)


def accuracy_of(model: str, tuning: str, task: str, seed: int, eval_task: str) -> float:
    """The made-up accuracy on ``eval_task`` after training on ``task``: a gain on its own, a loss elsewhere, both with IIMM."""
    beyond, before = iimm_of(model, task) - 0.2, zero_shot_of(model, eval_task)
    error = 0.04 * (_drawn(model, tuning, task, str(seed), eval_task) - 0.5)
    if task == eval_task:
        line = INTERCEPT + OWN_SLOPE.get(tuning, 1.0) * beyond + SCATTER * (_drawn("gain", model, tuning, task) - 0.5)
        return round(before + (line + error) * (1 - before), 4)
    return round(before * (1 - 0.8 * beyond) + error - 0.02, 4)


def validation_of(model: str, tuning: str, task: str, seed: int, index: int) -> float:
    """The made-up best validation accuracy of the index-th setting; the second setting is the better one on every other draw."""
    drawn = _drawn("validation", model, tuning, task, str(seed), str(index))
    return round(accuracy_of(model, tuning, task, seed, task) - 0.02 * drawn, 4)


def write_small_study(out: Path, plan: Plan | None = None, skip: Callable[[Cell], bool] = lambda cell: False) -> Plan:
    """Write the JSON file of every cell of the plan below ``out`` but those to skip; returns the plan."""
    plan = plan or small_plan()
    for unit in expand(plan):
        for cell in unit.cells:
            if not skip(cell):
                write_cell(cell, out, _RESULTS[cell.kind](cell.key, unit))
    return plan


def write_cell(cell: Cell, out: Path, results: Mapping[str, Any], state: str = "done", error: str = "") -> Path:
    """One cell's JSON as a run writes it."""
    content = {
        **{"format": "clipscope-cell/1", "kind": cell.kind, "key": dict(cell.key), "state": state, "error": error},
        **{"inputs": {}, "inputs_sha256": "0" * 64, "results": dict(results), "provenance": _PROVENANCE},
    }
    path = cell.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def _zero_shot(key: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    accuracy = zero_shot_of(key["model"], key["task"])
    return {
        "n_images": 1000,
        "top1": accuracy,
        "mean_per_class": accuracy,
        "worst_group": None,
        "groups": {},
        "n_skipped": 0,
        "seconds": 1.5,
    }


def _embed(key: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    edges = np.linspace(-0.2, 1.0, 61)
    middles = (edges[1:] + edges[:-1]) / 2
    histograms = {
        name: {"edges": edges.tolist(), "counts": np.round(1000 * np.exp(-(((middles - at) / 0.08) ** 2))).astype(int).tolist()}
        for name, at in HISTOGRAMS.items()
    }
    return {
        **{
            "file": f"embeddings/{key['model']}-{key['task']}.safetensors",
            "n_images": 5000,
            "n_skipped": 0,
            "n_classes": 10,
            "fingerprint": "f" * 64,
        },
        **{"embedding_seconds": 10.0 + TASKS.index(key["task"]), "text_seconds": 0.5, "checkpoint_sha256": "", "histograms": histograms},
    }


def _measure(key: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    model, task, measure = key["model"], key["task"], key["measure"]
    noise = 0.0 if measure == "iimm" else 0.1 * MEASURES.index(measure) * (_drawn(measure, model, task) - 0.5)
    score = iimm_of(model, task) + noise
    interval = {"stderr": 0.01, "low": score - 0.0196, "high": score + 0.0196, "interval": "jackknife"}
    return {"score": score, **interval, "calculation_seconds": 0.02 * (1 + MEASURES.index(measure))}


def _train(key: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    index = [cell.key for cell in unit.of_kind("train")].index(key)
    best = validation_of(key["model"], key["tuning_name"], key["task"], key["seed"], index)
    return {
        **{"checkpoint": _checkpoint(key), "best_validation": best, "best_epoch": 2, "n_skipped": 0, "seconds": 60.0},
        **{"zero_shot_validation": zero_shot_of(key["model"], key["task"])},
        "epochs": [{"loss": 1.0, "validation": best - 0.05}, {"loss": 0.5, "validation": best}],
    }


def _test(key: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    trainings = [cell.key for cell in unit.of_kind("train")]
    which = (key["model"], key["tuning_name"], key["task"], key["seed"])
    validations = [validation_of(*which, index) for index in range(len(trainings))]
    best = int(np.argmax(validations))
    accuracy = accuracy_of(*which, key["eval_task"])
    return {
        **{"chosen": trainings[best]["setting"], "checkpoint": _checkpoint(trainings[best]), "validation": validations[best]},
        **{"top1": accuracy, "mean_per_class": accuracy, **_TESTED},
    }


def _checkpoint(key: Mapping[str, Any]) -> str:
    return f"ckpts/{key['model']}-{key['tuning_name']}-{key['task']}-{key['setting']['label'].replace(' ', '-')}-seed{key['seed']}.pt"


def _drawn(*names: str) -> float:
    """A number in [0, 1) that depends on the names only."""
    return float(np.random.default_rng(list("|".join(names).encode())).random())


_RESULTS: dict[str, Callable[[Mapping[str, Any], Unit], dict[str, Any]]] = {
    **{"zero_shot": _zero_shot, "embed": _embed, "measure": _measure, "train": _train, "test": _test}
}
_TESTED = {"n_images": 1000, "n_skipped": 0, "worst_group": None, "groups": {}, "group_images": {}}
_PROVENANCE = {
    **{"versions": {"python": "3.11"}, "seed": 0, "precision": "fp32", "device": "cpu", "batch_size": 128, "seconds": 1.0},
    **{"images_per_second": 100.0, "peak_memory_mib": 500.0, "created": "2026-01-01T00:00:00+00:00"},
}
