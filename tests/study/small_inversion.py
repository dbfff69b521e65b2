"""A finished study of inversion, MADE UP, written as the cells' JSON files that a real run leaves. None of it is a measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.cells import Cell
from study.expansion import expand
from study.plan import Plan
from study.plan_file import read_plan
from tests.study.small_plans import write_inversion_plan
from tests.study.small_study import write_cell

NATIVE = {"Digits": 30.0, "Shapes-Color": 40.0, "ROxford5k": 50.0, "Shapes-Captions": 20.0}  # mAP
GAIN = {"oti": 2.0, "ovi": 3.0, "pca": 4.0, "iso": 5.0}
STEPS = {10: 8.0, 20: 5.0, 150: 0.0}  # what the mAP is above that of the last step
ACCURACY = {"native": 0.8, "oti": 0.7, "ovi": 0.6}


def small_plan(folder: Path, models: tuple[str, ...] = ("tiny", "clip"), top: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """Two models, three sets of images, one of texts, one that is classified."""
    known: dict[str, Any] = {
        **{"image_tasks": ["Digits", "Shapes-Color", "ROxford5k"], "text_tasks": ["Shapes-Captions"], "zero_shot_tasks": ["Digits"]},
        **{"misalignment": ["Digits"], "project": ["pca", "iso"], "fuse": [0.5]},
        **{"oti": {"num_pseudo_tokens": [1, 4], "snapshots": [10, 20]}},
    }
    return read_plan(write_inversion_plan(folder / "small.toml", {"models": list(models), **(top or {})}, **{**known, **changes}))


def write_small_inversion(out: Path, plan: Plan, skip: Callable[[Cell], bool] = lambda cell: False) -> None:
    """Write the JSON file of every cell of the plan below ``out`` but those to skip."""
    for unit in expand(plan):
        for cell in unit.cells:
            if not skip(cell):
                write_cell(cell, out, _RESULTS[cell.kind](cell.key))


def map_of(key: Mapping[str, Any]) -> float:
    """The made-up mAP: with R pseudo-tokens the gain of OTI R times, fused half of it."""
    of = key.get("inversion")
    gain = GAIN[of["kind"]] * of["num_pseudo_tokens"] + (of["seed"] - 42) if of else GAIN.get(key.get("project", ""), 0.0)
    return NATIVE[key["task"]] + (gain / 2 if "fuse" in key else gain)


def _retrieve(key: Mapping[str, Any]) -> dict[str, Any]:
    revisited = key["task"] == "ROxford5k"

    def scores(value: float) -> dict[str, float]:
        return {"mAP_easy": value, "mAP_hard": value / 2} if revisited else {"mAP": value, "recall_at_1": value + 10}

    without = {"easy": 2, "hard": 0} if revisited else {"": 0}
    found = {"scores": scores(map_of(key)), "n_queries": 70, "n_gallery": 500, "without_positives": without, "seconds": 0.5}
    if (of := key.get("inversion")) and of["snapshots"] and "fuse" not in key:
        found["at_steps"] = [{"step": step, "scores": scores(map_of(key) + more)} for step, more in STEPS.items()]
    return found


def _invert(key: Mapping[str, Any]) -> dict[str, Any]:
    of = key["inversion"]
    steps = [*of["snapshots"], of["steps"]]
    losses = [1 / (step * of["num_pseudo_tokens"]) for step in steps]
    found = {"folder": "inversion/x", "exp_name": "x", "n_items": 50, "steps": steps, "losses": losses}
    return {**found, "curve": [1 / (1 + step) for step in range(of["steps"])], "seconds": 10.0, "seconds_per_item": 0.2}


def _misalignment(key: Mapping[str, Any]) -> dict[str, Any]:
    def of(first: float, counts: list[int]) -> dict[str, Any]:
        edges = [round(first + 0.01 * place, 6) for place in range(len(counts) + 1)]
        return {"n": sum(counts), "mean": first, "std": 0.1, "edges": edges, "counts": counts}

    histograms = {"image_image_same_class": of(0.5, [1, 2, 3]), "image_image_different_class": of(0.48, [4, 0, 2])}
    return {"histograms": histograms, "overlap": {"image_image": 0.25}, "gaps": {"image_text": 0.6}, "at_steps": []}


_RESULTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "zero_shot": lambda key: {"top1": ACCURACY["native"], "n_images": 600},
    "invert": _invert,
    "retrieve": _retrieve,
    "inverted_zero_shot": lambda key: {"top1": ACCURACY[key["inversion"]["kind"]], "n_images": 600, "seconds": 1.0},
    "misalignment": _misalignment,
}
