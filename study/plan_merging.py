"""What a plan says of merging: tasks, fine-tuned models, corruptions, methods with their grids. Read by study.plan_merging_tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from datasets.naming import TaskName, parse_name

if TYPE_CHECKING:
    from study.plan import Setting

FINE_TUNE = "fine-tune"  # the tuning_name of trainings whose results are merged
TASK = "{task}"  # stands in the sources of fine-tuned models for what reports call the task
HUB = "hub-"  # begins the corruptions whose images the hub keeps as they are


@dataclass(frozen=True)
class MergingMethod:
    """One way to merge, with all points of its grid."""

    label: str  # the name of its table
    method: str  # one of merging.table.METHODS
    points: tuple[Mapping[str, Any], ...]  # the options of every point, those that the plan leaves to the method included
    varies: tuple[str, ...] = ()  # the options that have several values
    per_model: bool = False  # one encoder for each task
    transductive: bool = False  # adapts to the images that are tested on
    data: str = "none"  # what it looks at, as merging.method.Method says it


@dataclass(frozen=True)
class MergingPlan:
    """The table [merging] of a plan and those below it; everything in it has been checked.

    ``tasks`` and ``eval_tasks`` are {what reports call a task: the name of its data set}, ``sun397``: ``SUN397@hub``.
    """

    tasks: Mapping[str, str]  # a fine-tuned model of each is merged, in this order
    methods: tuple[MergingMethod, ...]
    eval_tasks: Mapping[str, str] = field(default_factory=dict)  # further ones that all is evaluated on: unseen
    corruptions: tuple[str, ...] = ()  # of their test images, ``motion_blur-3`` made here, ``hub-motion_blur`` as the hub keeps them
    fine_tunes: Mapping[str, str] = field(default_factory=dict)  # by model: the source of a task's model, with {task}; or
    train: Setting | None = None  # ... how they are trained
    tuning: str = "full"  # ... by which tuning

    @property
    def names(self) -> dict[str, str]:
        """{name of a data set: what reports call it} of all that is evaluated on, the corrupted ones included."""
        clean = {name: key for key, name in {**self.tasks, **self.eval_tasks}.items()}
        return clean | {corrupted(name, kind): f"{key}+{kind}" for kind in self.corruptions for name, key in clean.items()}

    def evaluated(self, corruption: str | None = None) -> list[str]:
        """The data sets that all is evaluated on, clean or with one corruption; those whose models are merged first."""
        names = dict.fromkeys((*self.tasks.values(), *self.eval_tasks.values()))
        return [name if corruption is None else corrupted(name, corruption) for name in names]

    def source(self, model: str, task: str) -> str:
        """Where the fine-tuned model of a data set lies, which was not trained here. ``imagefolder:photos/birds`` is called birds."""
        key = next(key for key, name in self.tasks.items() if name == task)
        return self.fine_tunes[model].replace(TASK, PurePath(key.partition(":")[2]).name or key)


def corrupted(name: str, corruption: str) -> str:
    """The data set with a corruption: ``Cars@hub`` is ``Cars@hub+motion_blur-3``, or with ``hub-motion_blur`` ``Cars@hub-motion_blur``."""
    parts = parse_name(name)
    if corruption.startswith(HUB):
        return str(replace(parts, convention=corruption))
    return str(TaskName(parts.base, parts.convention, parse_name(f"{name}+{corruption}").corruption))


def corruption_of(name: str) -> str | None:
    """The corruption in the name of a data set, as plans spell it; None of a clean one."""
    parts = parse_name(name)
    if parts.corruption:
        return str(parts.corruption)
    return parts.convention if parts.convention and parts.convention.startswith(HUB) else None


def clean(name: str) -> str:
    """The data set without the corruption."""
    parts = parse_name(name)
    convention = "hub" if parts.convention and parts.convention.startswith(HUB) else parts.convention
    return str(TaskName(parts.base, convention))
