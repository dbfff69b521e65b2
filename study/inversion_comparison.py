"""The numbers that papers printed of modality inversion, beside those of a study. See study.published_inversion for what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.inversion_results import Method, ScoreTable
from study.plan import Plan
from study.plan_inversion import MODALITY
from study.published_inversion import NATIVE, PUBLISHED_INVERSION, RETRIEVAL, PublishedInversion, backbone

RERUN_DIFFERS = ("RParis6k", "EuroSAT@coop")  # the later paper's native numbers are not those of Cross the Gap


@dataclass(frozen=True)
class ComparedScore:
    """One published number and the study's; both are percentages."""

    experiment: str
    what: str  # a data set, or the mean of how many
    method: str
    model: str
    published: float
    ours: float | None  # None where the study has no such number; ``note`` then says why
    note: str
    source: str
    cells: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours minus the published number: never one published number minus another."""
        return None if self.ours is None else self.ours - self.published


def compare_scores(tables: Sequence[ScoreTable], plan: Plan, key: str) -> list[ComparedScore]:
    """Every published number of the plan's models: first the means over data sets, then the single ones."""
    paper, found = PUBLISHED_INVERSION[key], {(of.experiment, of.model): of for of in tables}
    return [row for compared in (_means, _each) for model in plan.models for row in compared(paper, plan, model, found)]


def _means(paper: PublishedInversion, plan: Plan, model: str, found: dict[tuple[str, str], ScoreTable]) -> Iterator[ComparedScore]:
    for of in paper.means:
        if backbone(model) in of.of_model:
            table = found.get((of.experiment, model), ScoreTable(of.experiment, model))
            method, note = _method(paper, plan, model, of.method)
            ours = table.mean(method, of.tasks) if method else None
            lacking = [task for task in of.tasks if method and table.score(task, method) is None]
            note = note or (f"The study lacks {', '.join(lacking)}." if lacking else "")
            value, cells = (ours.value, ours.cells) if ours else (None, ())
            what = f"mean of {len(of.tasks)}"
            yield ComparedScore(of.experiment, what, of.method, model, of.of_model[backbone(model)], value, note, of.source, cells)


def _each(paper: PublishedInversion, plan: Plan, model: str, found: dict[tuple[str, str], ScoreTable]) -> Iterator[ComparedScore]:
    table = found.get((RETRIEVAL, model), ScoreTable(RETRIEVAL, model))
    for of in paper.each:
        if of.model != backbone(model):
            continue
        method, note = _method(paper, plan, model, of.method)
        for task, published in of.of_task.items():
            ours = table.score(task, method) if method else None
            value, cells = (ours.value, ours.cells) if ours else (None, ())
            said = note or _note(task, of.method, value)
            yield ComparedScore(RETRIEVAL, task, of.method, model, published, value, said, of.source, cells)


def _note(task: str, method: str, ours: float | None) -> str:
    if ours is None:
        return "The study has no such number."
    if task in RERUN_DIFFERS and method == NATIVE:
        return "Run anew by the later paper, and not what Cross the Gap has: the quoted OTI minus this is not what inversion gained."
    return ""


def _method(paper: PublishedInversion, plan: Plan, model: str, name: str) -> tuple[Method | None, str]:
    """The method of the study that does as the paper did; None and why where it has no such one."""
    if name not in MODALITY or plan.inversion is None:
        return Method(name), ""
    steps, count = paper.steps[name], paper.pseudo_tokens[name][backbone(model)]
    settings = plan.inversion.settings(name, model)
    if all(setting.steps != steps or setting.num_pseudo_tokens != count for setting in settings):
        return None, f"The paper learns {count} pseudo-token{'s' * (count > 1)} in {steps} steps, which this plan does not."
    return Method(name, count), ""
