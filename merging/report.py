"""Reports of evaluated encoders: the JSON that merging results are published in, and a table to look at.

A report has the form of FusionBench's::

    {"model_info": {"trainable_params": 87456000, "all_params": 87456000, "trainable_percentage": 1.0, "name": "task_arithmetic"},
     "sun397": {"accuracy": 0.571, "loss": 1.72}, ...,
     "average": {"accuracy": 0.680, "loss": 1.50},
     "clipscope": {"tasks": {"sun397": {"correct": 11336, "total": 19850, ...}, ...}, ...}}

Accuracies are fractions; the averages are means over the tasks, which count alike. All that clipscope adds is under its own name.
``loss`` is the mean over images; the released code's, which gives the images of a short last batch more weight, is
``loss_over_batches`` there. A sweep, or the evaluation of several models, is a list of such reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ensure_folder, write_json
from common.text import aligned
from datasets.task import Task
from merging.evaluate import Scores

AVERAGE, SEEN, UNSEEN = "average", "seen", "unseen"
Report = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One encoder's scores by task, in order, and what is to be said of it. ``parameters`` are those of what was evaluated."""

    name: str
    scores: Mapping[str, Scores]
    parameters: int
    details: Mapping[str, Any]

    def accuracies(self, seen: Sequence[str] = ()) -> dict[str, float]:
        """{task: accuracy}, their average and, where some tasks are said to be seen, the averages of these and of the others."""
        of_task = {task: scores.accuracy for task, scores in self.scores.items()}
        groups = {AVERAGE: list(of_task), **_groups(of_task, seen)}
        return of_task | {group: _mean(of_task[task] for task in tasks) for group, tasks in groups.items()}

    @property
    def average(self) -> float:
        """The mean of the tasks' accuracies."""
        return _mean(scores.accuracy for scores in self.scores.values())


def make_report(evaluated: Evaluated, tasks: Mapping[str, Task], seen: Sequence[str], run: Mapping[str, Any]) -> Report:
    """The report of one encoder; ``run`` is what is to be said of the run."""
    info = {"trainable_params": evaluated.parameters, "all_params": evaluated.parameters, "trainable_percentage": 1.0}
    own: dict[str, Any] = {task: _numbers([scores]) for task, scores in evaluated.scores.items()}
    groups = {
        group: {"tasks": members, **_numbers([evaluated.scores[task] for task in members])}
        for group, members in _groups(evaluated.scores, seen).items()
    }
    details = {task: _details(tasks[task], scores) for task, scores in evaluated.scores.items()}
    average = {AVERAGE: _numbers(list(evaluated.scores.values()))}
    return {
        "model_info": {**info, "name": evaluated.name},
        **own,
        **average,
        "clipscope": {"tasks": details, **groups, **evaluated.details, **run},
    }


def check_report(path: Path, overwrite: bool) -> None:
    """A :class:`UserError` now rather than after the work, when the report could not be written."""
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; --report names a JSON file.")
    if path.exists() and not overwrite:
        raise UserError(f"'{path}' exists; name another --report, or add --overwrite.")
    ensure_folder(path.parent)


def write_reports(path: Path, reports: Sequence[Report], *, as_list: bool) -> None:
    """One report, or the list of them, as JSON; atomic."""
    write_json(path, list(reports) if as_list else reports[0])


def table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    """Accuracies, in percent with one decimal: a line for each of ``rows`` {name: {column: fraction}}; what is not known is empty."""
    lines = [["", *columns]]
    lines += [[name, *(f"{100 * values[column]:.1f}" if column in values else "" for column in columns)] for name, values in rows.items()]
    return aligned(lines)


def counts_table(evaluated: Evaluated, seen: Sequence[str] = (), published: Mapping[str, float] | None = None) -> str:
    """One encoder, a line for each task and average: accuracy in percent, the counts behind it, the loss, and what was published."""
    lines = [["", "accuracy", "correct", "images", "loss", *(["published"] if published else [])]]
    groups = {AVERAGE: list(evaluated.scores), **_groups(evaluated.scores, seen)}
    for name, accuracy in evaluated.accuracies(seen).items():
        scores = [evaluated.scores[task] for task in groups.get(name, [name])]
        counts = [str(scores[0].correct), str(scores[0].total)] if name in evaluated.scores else ["", ""]
        lines.append([name, f"{100 * accuracy:.1f}", *counts, f"{_mean(one.loss for one in scores):.4f}"])
        if published:
            lines[-1].append(f"{100 * published[name]:.1f}" if name in published else "")
    return aligned(lines)


def _groups(tasks: Iterable[str], seen: Sequence[str]) -> dict[str, list[str]]:
    """The tasks that were merged and those that were not; nothing where it is not said, and no group without a task."""
    groups = {SEEN: [task for task in tasks if task in seen], UNSEEN: [task for task in tasks if task not in seen]}
    return {group: members for group, members in groups.items() if members} if seen else {}


def _numbers(scores: Sequence[Scores]) -> dict[str, float]:
    return {"accuracy": _mean(one.accuracy for one in scores), "loss": _mean(one.loss for one in scores)}


def _details(task: Task, scores: Scores) -> dict[str, Any]:
    return {
        "correct": scores.correct,
        "total": scores.total,
        "loss_over_batches": scores.batch_loss,
        "n_skipped": len(scores.skipped),
        "dataset": task.name,
        "split": task.split,
        "fingerprint": task.fingerprint,
        "templates": task.templates,
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
