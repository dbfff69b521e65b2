"""The numbers that were printed of merging, beside those of a study. See study.published_merging for what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merging.options import MergeOptions
from merging.table import METHODS
from study.merging_results import FINE_TUNE, MERGE, SCALING, Encoder, MergingTable, Score, shown
from study.plan_merging import HUB
from study.published_merging import ALL_TASKS, SEEN, UNSEEN, Printed, printed

NO_ENCODER, NO_IMAGES, NO_NUMBER = "The study has no such encoder.", "The study has no such images.", "The study has no such number."
OWN_SEVERITY = "At which severity the published images were corrupted was not told; ours are made anew."


@dataclass(frozen=True)
class ComparedRow:
    """A published row and the study's encoder that did the same; ``note`` says what differs, or why there is none."""

    model: str
    published: Printed
    encoder: Encoder | None
    ours: Mapping[str, Score]  # by what the published row has: tasks and averages
    corruption: str | None = None  # of the study's images, as its plan calls it
    note: str = ""

    @property
    def images(self) -> str:
        """What the test images are."""
        return self.corruption or self.published.corruption or ""

    @property
    def averages(self) -> list[str]:
        """Which of the published numbers are averages."""
        return [name for name in (ALL_TASKS, SEEN, UNSEEN) if name in self.published.accuracies]

    def difference(self, name: str) -> float | None:
        """Ours minus the published number, in points."""
        return self.ours[name].value - self.published.accuracies[name] if name in self.ours else None


def compare_merging(table: MergingTable) -> list[ComparedRow]:
    """Every published row of what this table is of."""
    return [row for of in printed(table.model, table.plan.tasks, tuning_of(table)) for row in _rows(table, of)]


def tuning_of(table: MergingTable) -> str:
    """How what is merged was tuned: full, lora or l-lora, by the plan or by what the released models are called."""
    source = table.plan.fine_tunes.get(table.model, "")
    return ("l-lora" if "l-lora" in source else "lora" if "lora" in source else "full") if source else table.plan.tuning


def _rows(table: MergingTable, of: Printed) -> Iterator[ComparedRow]:
    """One for each of the plan's corruptions of that kind, which may be several severities; one where no encoder did the same."""
    found, corruptions = _encoder(table, of), [name for name in table.plan.corruptions if _kind(name) == of.corruption]
    if found is None or (of.corruption and not corruptions):
        yield ComparedRow(table.model, of, None, {}, note=NO_ENCODER if found is None else NO_IMAGES)
        return
    for corruption in corruptions or (None,):
        ours = {name: score for name in of.accuracies if (score := _score(table, found, name, corruption)) is not None}
        severity = OWN_SEVERITY if corruption and not corruption.startswith(HUB) else ""
        note = " ".join(filter(None, (_differs(found, of), severity, "" if ours else NO_NUMBER)))
        yield ComparedRow(table.model, of, found, ours, corruption, note)


def _kind(corruption: str) -> str:
    """``motion_blur`` of ``motion_blur-3`` and of ``hub-motion_blur``."""
    return corruption.removeprefix(HUB).partition("-")[0]


def _encoder(table: MergingTable, of: Printed) -> Encoder | None:
    """The base, a fine-tune, or the merge by that method whose settings are those that were printed."""
    if of.kind != MERGE:
        known = table.fine_tunes if of.kind == FINE_TUNE else table.encoders
        return next((encoder for encoder in known if encoder.kind == of.kind and (not of.name or encoder.label == of.name)), None)
    same = [encoder for encoder in table.merges if encoder.method == of.name and _has(encoder, of.settings) and not encoder.per_model]
    return min(same, key=lambda encoder: len(_unusual(encoder, of)), default=None)


def _has(encoder: Encoder, settings: Mapping[str, float]) -> bool:
    options = dict(encoder.options)
    return all(options.get(name, _default(encoder, name)) == value for name, value in settings.items())


def _default(encoder: Encoder, name: str) -> Any:
    return METHODS[encoder.method].default_scaling if name == SCALING else getattr(MergeOptions(), name, None)


def _unusual(encoder: Encoder, of: Printed) -> list[str]:
    """Options with other values than the released ones, which are the defaults where nothing else is known."""
    return [
        f"{name} {shown(value)}"
        for name, value in encoder.options
        if hasattr(MergeOptions(), name) and value is not None and value != of.released.get(name, _default(encoder, name))
    ]


def _differs(encoder: Encoder, of: Printed) -> str:
    unusual = _unusual(encoder, of) if encoder.kind == MERGE else []
    return f"Ours with {', '.join(unusual)}." if unusual else ""


def _score(table: MergingTable, encoder: Encoder, name: str, corruption: str | None) -> Score | None:
    if name in (ALL_TASKS, SEEN):
        return table.average(encoder, corruption=corruption)
    if name == UNSEEN:
        return table.average(encoder, table.plan.eval_tasks, corruption) if table.plan.eval_tasks else None
    return table.score(encoder, name, corruption) if name in {**table.plan.tasks, **table.plan.eval_tasks} else None
