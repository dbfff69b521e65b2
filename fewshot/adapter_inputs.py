"""The images of a training of adapters: those of its steps, and those on which it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from common.errors import UserError
from datasets.task import Task
from engine.embed import ImageEmbeddings, LoadOptions
from engine.inputs import check_unreadable
from engine.loading import Batch, make_loader
from engine.pixel_cache import with_cached_pixels
from engine.runtime import Runtime
from fewshot.intra_modal import intra_modal
from fewshot.objective import Objective
from metrics.statistics import MetricError
from models.preprocess import Geometry


class AdapterInputs:
    """The images of the training task, as an objective wants them."""

    def __init__(self, runtime: Runtime, objective: Objective, load: LoadOptions) -> None:
        self.runtime, self.task, self.order = runtime, objective.task, objective.order
        self.unreadable, self.max_skipped = dict[str, str](), load.max_skipped
        transform = objective.transform
        images = with_cached_pixels(runtime, transform, self.task, load) if isinstance(transform, Geometry) else self.task
        self.loader = make_loader(
            images,
            transform,
            self.order,
            num_workers=load.num_workers,
            pin_memory=runtime.pin_memory,
            seed=runtime.seed,
            full_decode=load.full_decode,
        )

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of this process from step ``first`` of an epoch on, on the device; unreadable images are missing."""
        self.order.set(epoch, first)
        self.loader.set_epoch(epoch)
        for batch in self.loader:
            self.unreadable.update((self.task.samples.sample_id(index), reason) for index, reason in batch.skipped)
            check_unreadable(self.unreadable, self.max_skipped)
            if not len(batch):
                raise UserError("Of a whole batch no image can be read; use a larger --batch-size, or take the images out of the data.")
            yield batch.to(self.runtime.device)


def measured(images: ImageEmbeddings, task: Task) -> dict[str, float]:
    """The measures of :mod:`fewshot.intra_modal` of a task's images; a :class:`UserError` where they have no pairs of both kinds."""
    try:
        return asdict(intra_modal(images.embeddings, task.labels[images.indices]))
    except MetricError as error:
        raise UserError(f"The overlap of the {len(task)} validation images of {task.name} cannot be measured: {error}") from error
