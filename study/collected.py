"""The tables of a finished, or unfinished, study: plain rows, each with the file that its numbers stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict


class Row(TypedDict):
    """What every row has."""

    cell: str  # path of the cell's JSON file, relative to the study's folder, with "/" on every system


class ZeroShotRow(Row):
    """The untuned encoder on the test split of a task."""

    model: str
    task: str
    top1: float  # all accuracies are shares in [0, 1]
    mean_per_class: float | None
    worst_group: float | None  # None: the task has no groups
    n_images: int | None
    n_skipped: int | None  # images that could not be read
    seconds: float | None


class EmbedRow(Row):
    """The embeddings of a task's training images and class texts, from which the measures are computed."""

    model: str
    task: str
    n_images: int | None
    n_skipped: int | None
    n_classes: int | None
    embedding_seconds: float | None  # of the images
    text_seconds: float | None  # of the class texts
    histograms: Mapping[str, Any]  # same_class, different_class, image_text_right, image_text_wrong: {"edges": [...], "counts": [...]}


class ScoreRow(Row):
    """One measure of one task; ``score`` is None and ``error`` says why where it is not defined."""

    model: str
    task: str
    measure: str
    score: float | None
    stderr: float | None
    low: float | None  # 95 % interval over the images, None where the measure has none
    high: float | None
    interval: str  # how it was made: jackknife, bootstrap or none
    calculation_seconds: float | None
    error: str  # "" where there is a score


class TrainingRow(Row):
    """One training run: one setting of one tuning's grid on one task with one seed."""

    model: str
    tuning: str  # the plan's name of the tuning, as everywhere
    setting: str  # the setting's label, e.g. "lr0.001 wd0.0001"
    values: Mapping[str, Any]  # all its values
    task: str
    seed: int
    best_validation: float
    best_epoch: int | None
    zero_shot_validation: float | None  # before any training; of a new probe or adapter that of what it starts from
    n_skipped: int | None
    seconds: float | None
    checkpoint: str  # path relative to the study's folder


class EvaluatedRow(Row):
    """The setting with the best validation accuracy, trained on ``task`` and tested on ``eval_task``."""

    model: str
    tuning: str
    task: str
    seed: int
    eval_task: str
    top1: float
    mean_per_class: float | None
    worst_group: float | None
    n_images: int | None
    n_skipped: int | None
    validation: float | None  # validation accuracy of the chosen setting, on ``task``
    chosen: str  # label of the chosen setting
    values: Mapping[str, Any]  # all its values
    checkpoint: str


class InversionRow(Row):
    """Pseudo-tokens of the queries of a data set, or of its class names."""

    model: str
    task: str
    side: str  # query or classes
    inversion: Mapping[str, Any]  # kind (oti or ovi), num_pseudo_tokens, steps, seed and the other values
    n_items: int | None
    steps: list[int]  # those of which the losses are, the last one the final
    losses: list[float]  # 1 - cosine to the target, mean over the items
    curve: list[float]  # the same before every step, as it was optimised
    seconds: float | None
    seconds_per_item: float | None


class RetrievalRow(Row):
    """How well the queries of a data set find what is relevant to them; scores are percentages."""

    model: str
    task: str
    query: str  # image, text, oti or ovi
    gallery: str
    inversion: Mapping[str, Any] | None  # of the queries
    fuse: float | None  # share of the inverted similarity
    project: str | None  # pca or iso, of native features
    drop: list[int] | None  # largest and smallest directions that iso leaves out
    scores: Mapping[str, float]  # mAP, mAP_at_R, recall_at_1 ...; of revisited Oxford and Paris mAP_easy and so on
    at_steps: list[Mapping[str, Any]]  # step and scores after each recorded step, of inverted queries alone
    n_queries: int | None
    n_gallery: int | None
    without_positives: Mapping[str, int]  # queries that could not be scored, by protocol
    seconds: float | None


class InvertedZeroShotRow(Row):
    """Zero-shot accuracy with inverted test images (oti) or inverted class names (ovi); a share, as all accuracies."""

    model: str
    task: str
    inversion: Mapping[str, Any]
    top1: float
    n_images: int | None
    seconds: float | None


class MisalignmentRow(Row):
    """How cosines are distributed within and between modalities, and of what is inverted; see inversion.misalignment."""

    model: str
    task: str
    inversion: Mapping[str, Any]
    histograms: Mapping[str, Any]
    overlap: Mapping[str, float]
    gaps: Mapping[str, float]
    at_steps: list[Mapping[str, Any]]  # step, means of the cosines, gaps


class MergeRow(Row):
    """One merge of a model's fine-tunes."""

    model: str
    merge: Mapping[str, Any]  # label, method, options, tasks, adapt
    seed: int | None
    per_model: bool  # whether it gave one encoder for each task
    transductive: bool
    data: str  # what images it looked at
    parameters: int | None
    learnt: Mapping[str, Any]
    seconds: float | None


class MergedTestRow(Row):
    """A merge on the test images of one data set; with one encoder for each task, that of this task."""

    model: str
    merge: Mapping[str, Any]
    seed: int | None
    eval_task: str
    top1: float
    n_images: int | None
    n_correct: int | None
    loss: float | None
    seconds: float | None


class SingleTestRow(Row):
    """The encoder that was fine-tuned on one task, on the test images of a data set."""

    model: str
    fine_tune: str  # the task that it was tuned on
    seed: int | None  # of its training; None where it was not trained here
    eval_task: str
    top1: float
    n_images: int | None
    n_correct: int | None
    loss: float | None
    seconds: float | None


class FailedRow(Row):
    """A cell that ended in an error."""

    kind: str
    name: str
    error: str


@dataclass(frozen=True)
class Collected:
    """All that a study's folder says; every list is in the plan's order. Made by :func:`study.collect.collect`."""

    zero_shot: list[ZeroShotRow] = field(default_factory=list)
    embeds: list[EmbedRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    trainings: list[TrainingRow] = field(default_factory=list)
    tests: list[EvaluatedRow] = field(default_factory=list)
    inversions: list[InversionRow] = field(default_factory=list)
    retrievals: list[RetrievalRow] = field(default_factory=list)
    inverted_zero_shot: list[InvertedZeroShotRow] = field(default_factory=list)
    misalignments: list[MisalignmentRow] = field(default_factory=list)
    merges: list[MergeRow] = field(default_factory=list)
    merged_tests: list[MergedTestRow] = field(default_factory=list)
    single_tests: list[SingleTestRow] = field(default_factory=list)
    failed: list[FailedRow] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # paths, relative to the study's folder, of cells that have yet to be done

    @property
    def rows(self) -> list[Row]:
        """The rows of all kinds of cells that are done."""
        finetuning = (*self.zero_shot, *self.embeds, *self.scores, *self.trainings, *self.tests)
        inversion = (*self.inversions, *self.retrievals, *self.inverted_zero_shot, *self.misalignments)
        return [*finetuning, *inversion, *self.merges, *self.merged_tests, *self.single_tests]

    @property
    def complete(self) -> bool:
        """Whether every cell of the plan is done."""
        return not (self.failed or self.missing)
