"""Measures of images that come in batches and are forgotten: nothing is written, nothing is held but sums.

:class:`StreamedMeasures` is a ``torchmetrics.Metric``: update it by batch on any device, in any number of processes, and one pass
over the data serves all the measures it was made for. The numbers are computed by the closed forms of :mod:`metrics`, so they
are those of an embeddings file to rounding (which the H-score of a nearly singular covariance magnifies, there as here).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric

from common.errors import UserError, unknown_name
from datasets.task import Task
from engine.embed import LoadOptions, batches_of, describe_run, embed_classes, in_background, of_all_processes
from engine.loading import SkippedImages
from engine.moments import Layout, Moments
from engine.runtime import Runtime
from metrics.statistics import UNIT_TOLERANCE, ImageSums, MetricError, Statistics, unit_rows
from metrics.sums import OF_SUMS, SCATTER, SCATTERS, SQUARES, SUMS, Excess, Sums
from metrics.table import BY_ANY_NAME
from models.selection import Selection

MOST_BYTES = 1 << 30  # that the scatters of all classes may take
FILE_INSTEAD = "keep the embeddings and measure the file with get_metric_scores.py"


class StreamedMeasures(Metric):
    """Measures ``names`` of the table, of images against class ``texts`` [C, D] (unit rows).

    ``update(images, labels)`` takes images [B, D] of any float type (unit rows, B may be 0) and labels [B] in ``range(C)``;
    ``compute()`` gives {name: float64 scalar}. States are float64 (counts int64) and sums over images, so those of several processes
    add up; only the second moments, kept about the class means lest digits be lost, are merged by a formula of their own. On a
    device without float64 (MPS) leave this on the CPU: batches are brought to it.

    Raises a UserError for a measure that is no function of sums, or whose sums are too large. :meth:`compute` raises
    MetricError where a measure is undefined, and for rows that are not unit and labels out of range: :meth:`update` only notes
    these, since to look at them it would have to wait for the device.

    >>> measures = StreamedMeasures(["alignment"], torch.eye(2))
    >>> measures.update(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 0]))
    >>> measures.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    >>> round(measures.compute()["alignment"].item(), 6)
    0.866667
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
    texts: Tensor  # [C, D]
    class_counts: Tensor  # [C]
    class_sums: Tensor  # [C, D]
    squared_length: Tensor  # sum |x_i|^2
    worst_length: Tensor  # max ||x_i| - 1|
    wrong_labels: Tensor  # how many
    excess: Tensor  # [2 + D]: metrics.sums.Excess
    moments: Tensor  # engine.moments, flat

    def __init__(self, names: Sequence[str], texts: Tensor | ArrayLike, **options: Any) -> None:
        super().__init__(**options)
        rows = torch.from_numpy(unit_rows("text_embeddings", _array(texts)))
        classes, dimensions = rows.shape
        self.names, self.step = list(names), step_of(names, classes, dimensions)
        self.layout = Layout(classes, dimensions, {SCATTER: 1, SCATTERS: classes}.get(self.step, 0))
        self.register_buffer("texts", rows)
        self._add("class_counts", torch.zeros(classes, dtype=torch.int64))
        self._add("class_sums", torch.zeros(classes, dimensions, dtype=torch.float64))
        self._add("squared_length", torch.zeros((), dtype=torch.float64))
        self._add("worst_length", torch.zeros((), dtype=torch.float64), "max")
        self._add("wrong_labels", torch.zeros((), dtype=torch.int64))
        if self.step >= SQUARES:
            self._add("moments", self.layout.zeros(), self.layout.merged)
        if self.step >= SCATTER:
            self._add("excess", torch.zeros(2 + dimensions, dtype=torch.float64))

    def _add(self, name: str, zeros: Tensor, together: str | Callable[[Tensor], Tensor] = "sum") -> None:
        self.add_state(name, zeros, dist_reduce_fx=together, persistent=True)

    def update(self, images: Tensor, labels: Tensor) -> None:
        """Add images [B, D] with labels [B]."""
        rows = images.detach().to(self.texts.device).double()  # in two steps: MPS has no float64
        labels = labels.to(rows.device).long()
        known = labels.clamp(0, self.layout.classes - 1)
        squares = rows.square().sum(dim=1)
        self.wrong_labels += (known != labels).sum()
        self.worst_length = torch.cat([(squares.sqrt() - 1).abs(), self.worst_length[None]]).max()  # NaN wins
        self.class_counts.index_add_(0, known, torch.ones_like(self.class_counts[known]))
        self.class_sums.index_add_(0, known, rows)
        self.squared_length += squares.sum()
        if self.step >= SQUARES:
            Moments.of(self.moments, self.layout).add(rows, known)
        if self.step >= SCATTER:
            over = squares - 1
            self.excess += torch.cat([torch.stack([over.sum(), over.square().sum()]), over @ rows])

    def compute(self) -> dict[str, Tensor]:
        """Every measure of all images so far, of all processes."""
        of = self.sums()
        return {name: torch.tensor(score(name, of), dtype=torch.float64, device=self.texts.device) for name in self.names}

    def sums(self) -> Sums:
        """The sums so far, for NumPy: of this process, or of all within ``sync_context()``. MetricError after invalid images."""
        self._check()
        counts = self.class_counts.cpu().numpy()
        images = ImageSums(int(counts.sum()), float(self.squared_length), counts, self.class_sums.cpu().numpy())
        statistics = Statistics(images, self.texts.cpu().numpy())
        if self.step == SUMS:
            return Sums(statistics)
        moments = Moments.of(self.moments, self.layout)
        if self.step == SQUARES:
            return Sums(statistics, moments.squares_for_numpy())
        total, squared, *_ = self.excess.tolist()
        excess = Excess(total, squared, self.excess[2:].cpu().numpy())
        scatters = moments.scatters_for_numpy() if self.step == SCATTERS else None
        return Sums(statistics, moments.squares_for_numpy(), moments.scatter_for_numpy(), excess, scatters)

    def _check(self) -> None:
        classes, worst = self.layout.classes, float(self.worst_length)
        if int(self.wrong_labels):
            raise MetricError(f"{int(self.wrong_labels)} labels are not in 0..{classes - 1}; there are {classes} classes.")
        if not np.isfinite(worst):
            raise MetricError("A row of image_embeddings has a value that is not finite.")
        if worst > UNIT_TOLERANCE:
            raise MetricError(
                f"The length of a row of image_embeddings is {worst:.6g} off 1; every row must be a unit vector (to {UNIT_TOLERANCE:g})."
            )


@dataclass(frozen=True)
class Streamed:
    """What one pass over a task gave: ``scores`` by name, why others are ``undefined``, N, and the metadata of embeddings."""

    scores: dict[str, float]
    undefined: dict[str, str]
    n_images: int
    skipped: SkippedImages
    metadata: dict[str, str]


def stream_measures(runtime: Runtime, selection: Selection, task: Task, options: LoadOptions, names: Sequence[str]) -> Streamed:
    """Measure ``task`` in one pass, by all processes together, each with its share of the images; no embedding is kept.

    Raises a UserError for measures that cannot be streamed, before the pass, and for too many unreadable images.
    """
    encoder, started = selection.encoder, time.perf_counter()
    step_of(names, len(task.classnames), encoder.embed_dim)
    with measuring(task):
        measures = StreamedMeasures(names, embed_classes(runtime, encoder, task))
    measures.to("cpu" if runtime.device.type == "mps" else runtime.device)
    text_seconds, started = time.perf_counter() - started, time.perf_counter()
    skipped = SkippedImages(options.max_skipped)
    with in_background(lambda: task.fingerprint), torch.inference_mode(), runtime.autocast():
        for batch in batches_of(runtime, encoder, task, options, skipped):
            measures.update(encoder.encode_image(batch.pixels).float(), batch.labels)
    skipped = of_all_processes(runtime, skipped)
    with measures.sync_context():
        scores, undefined = scores_of(measures, task)
        count = int(measures.class_counts.sum())
    metadata = describe_run(runtime, selection, task, options, time.perf_counter() - started, text_seconds, len(skipped))
    return Streamed(scores, undefined, count, skipped, metadata)


def scores_of(measures: StreamedMeasures, task: Task) -> tuple[dict[str, float], dict[str, str]]:
    """The scores by name, and why some are undefined."""
    with measuring(task):
        of = measures.sums()
    scores, undefined = {}, {}
    for name in measures.names:
        try:
            scores[name] = score(name, of)
        except MetricError as error:
            undefined[name] = str(error)
    return scores, undefined


@contextmanager
def measuring(task: Task) -> Iterator[None]:
    """Embeddings that are no unit vectors, as of a model whose weights have diverged, are a UserError."""
    try:
        yield
    except MetricError as error:
        raise UserError(f"{task.name} cannot be measured: {error}") from error


def step_of(names: Sequence[str], classes: int, dimensions: int) -> int:
    """Up to which step the measures need sums; a UserError when one is no function of sums or they would be too large."""
    check_names(names)
    step = max((OF_SUMS[BY_ANY_NAME[name].name].step for name in names), default=SUMS)
    size = 8 * classes * dimensions**2
    if step == SCATTERS and size > MOST_BYTES:
        raise UserError(
            f"transrate of {classes} classes in {dimensions} dimensions needs {size / 1e9:.1f} GB of sums, more than "
            f"{MOST_BYTES / 1e9:.1f} GB; {FILE_INSTEAD}."
        )
    return step


def check_names(names: Sequence[str]) -> None:
    """A UserError for a measure that does not exist or that is no function of sums."""
    for name in names:
        if name not in BY_ANY_NAME:
            raise unknown_name("metric", name, BY_ANY_NAME)
        if BY_ANY_NAME[name].name not in OF_SUMS:
            raise UserError(f"{name} needs all embeddings at once; {FILE_INSTEAD}. Measured on the way are: {', '.join(OF_SUMS)}.")


def score(name: str, of: Sums) -> float:
    """One measure, by any of its names, of sums."""
    return OF_SUMS[BY_ANY_NAME[name].name].function(of)


def _array(texts: Tensor | ArrayLike) -> ArrayLike:
    return texts.detach().cpu().double().numpy() if isinstance(texts, Tensor) else texts
