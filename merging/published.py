"""Accuracies that were printed of merged and single encoders, to be set beside one's own (``published.json``)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("published.json")
ARCHITECTURES = {87_456_000: "ViT-B/32", 85_799_424: "ViT-B/16", 303_179_776: "ViT-L/14"}  # by the parameters of the image tower
ROWS = {
    "simple_average": "Simple Averaging",
    "task_arithmetic": "Task Arithmetic",
    "ties": "Ties-Merging",
    "fisher": "Fisher Merging",
    "regmean": "RegMean",
    "regmean_plus_plus": "RegMean++",
    "task_wise_adamerging": "Task-wise AdaMerging",
    "layer_wise_adamerging": "Layer-wise AdaMerging",
    "concrete_task_arithmetic": "Concrete Task Arithmetic",
    "concrete_layer_wise_adamerging": "Concrete Layer-wise AdaMerging",
    "wemoe": "Weight-Ensembling MoE",
    "e_wemoe": "Efficient Weight-Ensembling MoE 90%",
    "tsv_m": "TSV-M",
    "wudi": "WUDI-Merging",
    "iso_c": "ISO-C",
    "iso_cts": "ISO-CTS",
    "magmax": "MagMax",
}  # of our methods
GENERALIZATION = "ViT-B/32"  # the architecture of those experiments
PRETRAINED = "Pre-trained"
AVERAGE = "average"


@cache
def facts() -> dict[str, Any]:
    """All that is known, percentages in the order of its ``tasks``, the average last; null where only the average was printed."""
    return json.loads(PATH.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def of_method(
    method: str, parameters: int, models: int, tasks: Collection[str], seen: Collection[str] = ()
) -> tuple[str, dict[str, float]] | None:
    """What was printed of merging with ``method``: what the row is called, and {task: accuracy}, as a fraction.

    It is of the eight models of TA8, or of the six ``seen`` ones of a generalization experiment, so ``models`` must be as many.
    ``parameters`` are those of the image tower and tell the architecture. The average is there when ``tasks`` are just the eight.
    None where nothing is known.
    """
    row, architecture = ROWS.get(method, ""), ARCHITECTURES.get(parameters, "")
    experiments = facts()["generalization"].values() if architecture == GENERALIZATION else ()
    tables = {tuple(facts()["tasks"]): facts()["merging"].get(architecture, {})}
    tables |= {tuple(experiment["seen"]): experiment["rows"] for experiment in experiments}
    for merged, rows in tables.items():
        if len(merged) == models and set(seen or facts()["tasks"]) == set(merged) and row in rows:
            return _label(row), _of_tasks(rows[row], tasks)
    return None


def of_model(name: str, parameters: int, tasks: Collection[str]) -> dict[str, float] | None:
    """What was printed of a fine-tune, called as its task or, as on the hub, ``clip-vit-base-patch32_sun397``, or of the base,
    :data:`PRETRAINED`; None where nothing is known."""
    rows = facts()["single"].get(ARCHITECTURES.get(parameters, ""), {})
    task = next((task for task in facts()["tasks"] if name == task or name.endswith(f"_{task}")), None)
    row = name if task is None else {"stanford-cars": "Cars", "eurosat": "EuroSAT"}.get(task, task.upper())
    return _of_tasks(rows[row], tasks) if row in rows else None


def _label(row: str) -> str:
    settings: Mapping[str, float] = facts()["settings"].get(row, {})
    return " ".join([row, *(f"{option} {value:g}" for option, value in settings.items())])


def _of_tasks(values: list[float | None], tasks: Collection[str]) -> dict[str, float]:
    columns = [*facts()["tasks"], AVERAGE]
    wanted = {*tasks, *([AVERAGE] if set(tasks) == set(facts()["tasks"]) else [])}
    return {column: round(value / 100, 4) for column, value in zip(columns, values, strict=True) if column in wanted and value is not None}
