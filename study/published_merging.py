"""Numbers printed of merged encoders, to be set beside those of a study: what :mod:`merging.published` knows, as one list of rows.

All are percentages of top-1 accuracy, printed with one decimal. Which rows there are follows from what is merged: the eight tasks of
task arithmetic, the six of a generalization experiment, the four of the robustness experiment, or the twenty of TALL masks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merging.published import ROWS, facts
from merging.task_names import GROUPS
from study.merging_results import BASE, FINE_TUNE, MERGE, OWN, SCALING

FUSION_BENCH = "fusion_bench"
PUBLISHED_MERGING: dict[str, tuple[str, ...]] = {
    FUSION_BENCH: (
        "Hyper-parameters were not tuned; numbers of the papers themselves were made with other checkpoints (OpenCLIP's), and those of "
        "two rounds of the same evaluation differ by 0.3 to 1 point.",
        "AdaMerging, Concrete and WEMoE adapt to the unlabelled test images that are then scored; WEMoE is evaluated there in batches "
        "of one task, whose routing is averaged, so the batch tells it the task.",
        "Fisher merging took the first 256 images of sets that are sorted by class, and the squared gradient of a batch's sum.",
        "Concrete masks are drawn at random once more for the evaluation.",
        "Generalization: these rows were made with other checkpoints; in experiment 2 the untuned encoder's printed average of the unseen "
        "tasks, 40.1, is not the mean of the two that are printed beside it, 42.05.",
    )
}  # by the name that a plan gives: what must be known of the numbers
ARCHITECTURES = {
    **{"clip": "ViT-B/32", "openai/clip-vit-base-patch32": "ViT-B/32"},
    **{"ViT-B-16-quickgelu/openai": "ViT-B/16", "openai/clip-vit-base-patch16": "ViT-B/16"},
    **{"ViT-L-14-quickgelu/openai": "ViT-L/14", "openai/clip-vit-large-patch14": "ViT-L/14"},
}  # by the names of their bases in plans
_ADAMERGING, _CONCRETE = {"adapt_lr": 1e-3}, {"adapt_lr": 1e-3, "mask_steps": 1000}
RELEASED: dict[str, dict[str, Any]] = {
    **{"task_wise_adamerging": _ADAMERGING, "layer_wise_adamerging": _ADAMERGING},
    **{"concrete_task_wise_adamerging": _CONCRETE, "concrete_layer_wise_adamerging": _CONCRETE},
    "concrete_task_arithmetic": {**_CONCRETE, "mask_steps": 2000},
    **{"wemoe": {"adapt_lr": 1e-4}, "e_wemoe": {"adapt_lr": 1e-4, "prune_ratio": 0.9, "shared_gate": True}},
}  # by method: the released values of options that MergeOptions leaves to it
ROUTER_RATES = {"generalization exp1": 2e-3, "generalization exp2": 2e-3, "robustness": 5e-5}  # of WEMoE, in the released scripts
ALL_TASKS, SEEN, UNSEEN = "average", "average of the merged", "average of the unseen"
CLEAN = "clean"
_KINDS = {"Pre-trained": BASE, "Fine-tuned (STL)": OWN}
_FINE_TUNES = {"stanford-cars": "Cars", "eurosat": "EuroSAT"}


@dataclass(frozen=True)
class Printed:
    """A row of a published table. ``accuracies`` are by task and by ALL_TASKS, SEEN or UNSEEN, in %."""

    experiment: str
    row: str  # as it is called there
    kind: str  # of study.merging_results: base, own, fine-tune or merge
    name: str  # of a merge the method; of a fine-tune its task
    settings: Mapping[str, float]  # options that were printed with it, whatever the method's defaults are
    accuracies: Mapping[str, float]
    corruption: str | None = None

    @property
    def released(self) -> dict[str, Any]:
        """The released values of options that the method's defaults do not tell."""
        rate = {"adapt_lr": ROUTER_RATES[self.experiment]} if self.name == "wemoe" and self.experiment in ROUTER_RATES else {}
        return {**RELEASED.get(self.name, {}), **rate, **self.settings}


def printed(model: str, merged: Collection[str], tuning: str = "full") -> Iterator[Printed]:
    """All rows that were printed of a base and of the merge of these tasks (called as in reports), tuned so (full, lora or l-lora)."""
    architecture = ARCHITECTURES.get(model.removeprefix("hf-hub:").removeprefix("huggingface:"), "")
    if tuning != "full":
        yield from (row for row in _eight(architecture) if row.kind == BASE)
        yield from _singles(f"{architecture} {'L-LoRA' if tuning == 'l-lora' else 'LoRA'}")
        return
    if set(merged) == set(GROUPS["TA8"]):
        yield from _eight(architecture)
        yield from _singles(architecture)
    for group, rows in facts()["averages"].get(architecture, {}).items():
        if set(merged) == set(GROUPS[group]):
            yield from (_row(group, row, {ALL_TASKS: average}) for row, average in rows.items())
    if architecture == "ViT-B/32":
        yield from _generalization(merged)
        yield from _robustness(merged)


def _eight(architecture: str) -> Iterator[Printed]:
    for row, values in facts()["merging"].get(architecture, {}).items():
        if row in _KINDS or row in ROWS.values():
            yield _row("eight tasks", row, _named([*facts()["tasks"], ALL_TASKS], values))
    for row, of_scaling in facts()["by_scaling"].get(architecture, {}).items():
        for scaling, average in of_scaling.items():
            if float(scaling) != facts()["settings"][row][SCALING]:  # which is among the rows already
                yield _row("eight tasks", row, {ALL_TASKS: average}, settings={SCALING: float(scaling)})


def _singles(table: str) -> Iterator[Printed]:
    rows, tasks = facts()["single"].get(table, {}), facts()["tasks"]
    for task in tasks:
        if (row := _FINE_TUNES.get(task, task.upper())) in rows:
            yield Printed("single models", row, FINE_TUNE, task, {}, _named([*tasks, ALL_TASKS], rows[row]))


def _generalization(merged: Collection[str]) -> Iterator[Printed]:
    for name, of in facts()["generalization"].items():
        if set(merged) == set(of["seen"]):
            for row, values in of["rows"].items():
                averages = dict(zip((SEEN, UNSEEN), of["averages"][row], strict=True))
                yield _row(f"generalization {name}", row, {**_named(facts()["tasks"], values[:-1]), **averages})


def _robustness(merged: Collection[str]) -> Iterator[Printed]:
    of = facts()["robustness"]
    if set(merged) == set(of["tasks"]):
        for corruption, rows in of["rows"].items():
            for row, values in rows.items():
                accuracies = _named([*of["tasks"], ALL_TASKS], values)
                yield _row("robustness", row, accuracies, None if corruption == CLEAN else corruption)


def _row(
    experiment: str, row: str, accuracies: Mapping[str, float], corruption: str | None = None, settings: Mapping[str, Any] | None = None
) -> Printed:
    method = next((method for method, known in ROWS.items() if known == row), "")
    said = facts()["settings"].get(row, {}) if settings is None else settings
    return Printed(experiment, row, _KINDS.get(row, MERGE), method, said, accuracies, corruption)


def _named(columns: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    return {column: value for column, value in zip(columns, values, strict=True) if value is not None}
