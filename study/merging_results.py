"""From the cells of merging to tables of a model: encoders by tasks, averages over the merged and over the unseen tasks, scaling curves.

Scores are top-1 accuracies as percentages; one that several seeds have is their mean. An average is there only where every task of it
is known: over fewer tasks it would not compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from common.files import exact
from merging.arguments import dashed
from study.collected import Collected, MergedTestRow, MergeRow, SingleTestRow, ZeroShotRow
from study.inversion_results import Score
from study.plan import Plan
from study.plan_merging import MergingMethod, MergingPlan, clean, corrupted

BASE, OWN, FINE_TUNE, MERGE = "base", "own", "fine-tune", "merge"  # kinds of encoders; own: of every task the fine-tune on it
BASE_LABEL, OWN_LABEL = "base, zero-shot", "fine-tuned, each on its task"
SCALING = "scaling"
NEEDS = DATA_FREE, WITH_IMAGES, TRANSDUCTIVE, PER_TASK = (
    "without images",
    "with training images",
    "with the test images, unlabelled",
    "with an encoder for each task",
)


class Encoder(NamedTuple):
    """What a row of a table is of."""

    kind: str
    label: str
    method: str = ""  # of a merge: a name of merging.table.METHODS
    options: tuple[tuple[str, Any], ...] = ()  # of a merge: those that the plan gives
    adapt: str | None = None  # of a merge: the corruption of the images that it was made with
    per_model: bool = False  # of a merge: whether every task has an encoder of its own

    @property
    def scaling(self) -> float | None:
        """What the merged task vector was multiplied by; None where the method has no scaling."""
        return dict(self.options).get(SCALING)

    @property
    def clean(self) -> Encoder:
        """The same merge, made with clean images."""
        return self._replace(adapt=None)


@dataclass(frozen=True)
class MergingTable:
    """One model's encoders on all tasks, clean and corrupted."""

    model: str
    plan: MergingPlan
    encoders: tuple[Encoder, ...]  # the base, every task's own fine-tune, merges as in the plan
    fine_tunes: tuple[Encoder, ...]
    scores: Mapping[tuple[Encoder, str], Score]  # by encoder and data set
    rows: Mapping[Encoder, MergeRow] = field(default_factory=dict)  # what is known of a merge

    @property
    def merges(self) -> list[Encoder]:
        """The encoders that were merged, each once."""
        return [encoder for encoder in self.encoders if encoder.kind == MERGE]

    def score(self, encoder: Encoder, task: str, corruption: str | None = None) -> Score | None:
        """Of the task that tables call so; of corrupted images by what adapted to such images, where the method adapts."""
        of_task = {**self.plan.tasks, **self.plan.eval_tasks}[task]
        adapt = corruption if encoder.kind == MERGE and self._method(encoder).transductive else None
        return self.scores.get((encoder._replace(adapt=adapt), of_task if corruption is None else corrupted(of_task, corruption)))

    def _method(self, encoder: Encoder) -> MergingMethod:
        """What the plan says of a merge's method; of all its tables the same."""
        return next(of for of in self.plan.methods if of.method == encoder.method)

    def average(self, encoder: Encoder, tasks: Iterable[str] | None = None, corruption: str | None = None) -> Score | None:
        """The mean over ``tasks`` (default: the merged ones); None unless all are known."""
        found = [self.score(encoder, task, corruption) for task in (self.plan.tasks if tasks is None else tasks)]
        known = [score for score in found if score is not None]
        return mean(known) if known and len(known) == len(found) else None

    def normalised(self, encoder: Encoder) -> float | None:
        """The mean over the merged tasks of the accuracy in % of that of the task's own fine-tune."""
        own = self.own
        pairs = [(self.score(encoder, task), self.score(own, task)) for task in self.plan.tasks] if own else []
        shares = [100 * ours.value / its.value for ours, its in pairs if ours is not None and its is not None and its.value]
        return float(np.mean(shares)) if shares and len(shares) == len(pairs) else None

    @property
    def own(self) -> Encoder | None:
        """The row of every task's own fine-tune."""
        return next((encoder for encoder in self.encoders if encoder.kind == OWN), None)

    def name(self, encoder: Encoder) -> str:
        """Its label, with * where it saw the test images without their labels and † where every task has an encoder of its own."""
        return encoder.label + {TRANSDUCTIVE: " *", PER_TASK: " †"}.get(self.need(encoder), "")

    def need(self, encoder: Encoder) -> str:
        """What a merge looked at, or that it is an encoder for each task: one of NEEDS; nothing of the base and the fine-tunes."""
        if encoder.kind != MERGE or encoder.per_model:
            return PER_TASK if encoder.per_model else ""
        row, method = self.rows.get(encoder), self._method(encoder)
        if row["transductive"] if row else method.transductive:
            return TRANSDUCTIVE
        return DATA_FREE if method.data == "none" else WITH_IMAGES

    def by_need(self) -> dict[str, list[Encoder]]:
        """The merges by what they need; only needs that some have."""
        found = {need: [encoder for encoder in self.merges if self.need(encoder) == need] for need in NEEDS}
        return {need: encoders for need, encoders in found.items() if encoders}


def mean(scores: Sequence[Score]) -> Score:
    """The mean of some numbers, from all their cells."""
    return Score(float(np.mean([score.value for score in scores])), tuple(dict.fromkeys(cell for score in scores for cell in score.cells)))


def merging_tables(collected: Collected, plan: Plan) -> list[MergingTable]:
    """Of every model of a plan that merges; those without a number are left out."""
    if plan.merging is None:
        return []
    tables = [_table(collected, plan.merging, model) for model in plan.models]
    return [table for table in tables if table.scores]


class Tested(NamedTuple):
    """One encoder on one data set, and the row that says how it did."""

    encoder: Encoder
    data_set: str
    row: ZeroShotRow | SingleTestRow | MergedTestRow

    @property
    def score(self) -> Score:
        """The accuracy in %."""
        return Score(100 * self.row["top1"], (self.row["cell"],))


def tested(collected: Collected, plan: MergingPlan, model: str) -> Iterator[Tested]:
    """All that is known of one model: the base, the fine-tunes, the merges."""
    names = plan.names
    for base in collected.zero_shot:
        if base["model"] == model and base["task"] in names:
            yield Tested(Encoder(BASE, BASE_LABEL), base["task"], base)
    for single in collected.single_tests:
        if single["model"] == model:
            yield Tested(Encoder(FINE_TUNE, names[single["fine_tune"]]), single["eval_task"], single)
    for merged in collected.merged_tests:
        if merged["model"] == model:
            yield Tested(encoder_of(merged["merge"], plan), merged["eval_task"], merged)


def _table(collected: Collected, plan: MergingPlan, model: str) -> MergingTable:
    found: dict[tuple[Encoder, str], list[Score]] = {}
    for of in tested(collected, plan, model):
        found.setdefault((of.encoder, of.data_set), []).append(of.score)
        if of.encoder.kind == FINE_TUNE and plan.names[clean(of.data_set)] == of.encoder.label:
            found.setdefault((Encoder(OWN, OWN_LABEL), of.data_set), []).append(of.score)
    encoders = tuple(dict.fromkeys(encoder.clean for encoder, _ in found if encoder.kind != FINE_TUNE))
    fine_tunes = tuple(dict.fromkeys(encoder for encoder, _ in found if encoder.kind == FINE_TUNE))
    rows = {encoder_of(row["merge"], plan): row for row in collected.merges if row["model"] == model}
    return MergingTable(model, plan, encoders, fine_tunes, {key: mean(scores) for key, scores in found.items()}, rows)


def encoder_of(merge: Mapping[str, Any], plan: MergingPlan) -> Encoder:
    """What a cell's key says of a merge; one of a grid is called by the options that vary in it."""
    varies = next((of.varies for of in plan.methods if of.label == merge["label"]), ())
    options = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in merge["options"].items())
    varying = [f"{dashed(name)} {shown(value)}" for name, value in options if name in varies]
    return Encoder(MERGE, " ".join([merge["label"], *varying]), merge["method"], options, merge.get("adapt"), merge.get("per_model", False))


def shown(value: Any) -> str:
    """An option's value as tables show it."""
    return exact(value) if isinstance(value, float) else " ".join(map(shown, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Curve:
    """The accuracies of one method's merges, by scaling."""

    label: str
    method: str
    scalings: tuple[float, ...]  # in ascending order
    points: tuple[Encoder, ...]

    def averages(self, table: MergingTable) -> list[Score | None]:
        """Over the merged tasks, of every point."""
        return [table.average(point) for point in self.points]

    def best(self, table: MergingTable) -> tuple[float, Score] | None:
        """The scaling with the best average, the first on a tie; None where no average is known."""
        known = [(scaling, score) for scaling, score in zip(self.scalings, self.averages(table), strict=True) if score is not None]
        return max(known, key=lambda pair: pair[1].value, default=None)


def curves(table: MergingTable) -> list[Curve]:
    """Of every method that was tried with several scalings, one for each combination of its other options."""
    groups: dict[tuple[str, str, tuple[tuple[str, Any], ...]], list[Encoder]] = {}
    for encoder in table.merges:
        if encoder.scaling is not None:
            others = tuple(pair for pair in encoder.options if pair[0] != SCALING)
            groups.setdefault((_without_scaling(encoder), encoder.method, others), []).append(encoder)
    several = {key: sorted(points, key=lambda point: point.scaling or 0.0) for key, points in groups.items() if len(points) > 1}
    return [Curve(key[0], key[1], tuple(point.scaling or 0.0 for point in points), tuple(points)) for key, points in several.items()]


def _without_scaling(encoder: Encoder) -> str:
    return encoder.label.replace(f" {SCALING} {shown(dict(encoder.options).get(SCALING))}", "")


def merging_headline(tables: Sequence[MergingTable]) -> list[str]:
    """Of every model the averages of the base and of the fine-tunes, and the best merge of each need for images."""
    return [_headline(table) for table in tables]


def _headline(table: MergingTable) -> str:
    single = [(encoder, table.average(encoder)) for encoder in table.encoders if encoder.kind != MERGE]
    parts = [f"{encoder.label} {score.value:.1f}" for encoder, score in single if score is not None]
    for need, encoders in table.by_need().items():
        known = [(score.value, table.name(encoder)) for encoder in encoders if (score := table.average(encoder)) is not None]
        if known:
            value, name = max(known, key=lambda pair: pair[0])
            parts.append(f"best {need} {value:.1f} ({name})")
    return f"{table.model}, {len(table.plan.tasks)} tasks merged, top-1 accuracy in %: {'; '.join(parts) or 'no average is known yet'}"
