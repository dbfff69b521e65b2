"""What a data-aware method gets besides the pool: the encoder that is merged, and images of each model's task."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from datasets.task import Task
from engine.embed import LoadOptions, batches_of
from engine.loading import Batch, Loader, SkippedImages, make_loader
from engine.order import EpochOrder
from engine.pixel_cache import with_cached_pixels
from engine.runtime import Runtime
from merging.heads import Heads
from merging.methods.images import TOWER
from merging.weights import Weights
from models.encoder import Encoder

if TYPE_CHECKING:
    from merging.resuming import StateFile


@dataclass(frozen=True)
class MergeData:
    """The encoder, and by each model's name its task and zero-shot head.

    The pool beside it is under the names of ``encoder.model``, the image tower's beginning with :data:`TOWER`. ``tasks`` are the images
    that a method may look at: :meth:`batches` draws some by ``seed``, :meth:`endless` goes through all of them again and again. Both
    give preprocessed pixels float32 [b, 3, S, S] on the encoder's device, in the same order whatever the number of loader
    processes. ``heads`` are W float32 [C, D], unit rows. ``skipped`` receives the unreadable images of each model's last pass, ``passed``
    how many batches of its endless row have gone by. ``state`` keeps what a method learns until it is done. Raises :class:`UserError`
    for several processes, and for numbers below 1.
    """

    runtime: Runtime
    encoder: Encoder
    tasks: Mapping[str, Task]
    heads: Mapping[str, Tensor]
    load: LoadOptions
    examples: int = 256
    batch_size: int = 32
    seed: int = 0
    skipped: dict[str, SkippedImages] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    state: StateFile | None = None

    def __post_init__(self) -> None:
        for option in ("examples", "batch_size"):
            if (number := getattr(self, option)) < 1:
                raise UserError(f"--{option.replace('_', '-')} is {number}; it must be at least 1.")
        if self.runtime.world > 1:
            raise UserError(f"Merging with data runs in one process, and {self.runtime.world} were started; start one.")
        self.encoder.to(self.runtime.device)

    @property
    def device(self) -> torch.device:
        """Where the encoder is and the work is done."""
        return self.runtime.device

    def task(self, model: str) -> Task:
        """The task of a model; UserError where it has none."""
        if model not in self.tasks:
            raise UserError(f"No task is known for the model '{model}'; this method needs images of every model's task.")
        return self.tasks[model]

    def drawn(self, model: str) -> Task:
        """``examples`` images of a model's task, or all where there are fewer, in an order that the seed decides.

        Images are ranked by SHA-256 of (seed, sample id), so that neither their order in the files nor their labels matter, and a
        smaller draw is the beginning of a larger one.
        """
        task = self.task(model)
        ranks = [hashlib.sha256(f"{self.seed} {name}".encode()).digest() for name in task.sample_ids]
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        return task.subset(np.array(order[: self.examples], dtype=np.int64))

    def batches(self, model: str, batch_size: int | None = None) -> Iterator[Tensor]:
        """The drawn images of a model's task, by ``batch_size``; the batches together are the same images whatever it is."""
        options = replace(self.load, batch_size=batch_size or self.batch_size)
        skipped = self.skipped[model] = SkippedImages(options.max_skipped)
        found = False
        for batch in batches_of(self.runtime, self.encoder, self.drawn(model), options, skipped):
            found = True
            yield self.encoder.preprocess.of_bytes(batch.pixels)
        _check_found(found, self.task(model))

    def endless(self, model: str, batch_size: int | None = None, first: int = 0) -> Iterator[Tensor]:
        """All images of a model's task, in epochs without end, each in an order drawn from (seed, epoch); its last batch may be short.

        The batch with number ``first`` of this endless row comes first, so that work that was interrupted can go on.
        """
        task = with_cached_pixels(self.runtime, self.encoder.preprocess.geometry, self.task(model), self.load)
        order = EpochOrder(len(task), batch_size or self.batch_size, seed=self.seed)
        loader, (epoch, step) = self._loader(task, order), divmod(first, order.steps)
        while True:
            order.set(epoch, step)
            loader.set_epoch(epoch)
            skipped = self.skipped[model] = SkippedImages(self.load.max_skipped)
            found = False
            for number, batch in enumerate(loader, start=epoch * order.steps + step):
                self.passed[model] = number + 1  # unreadable batches count, so that the row can be put there
                skipped.add_batch(task, batch)
                skipped.check()
                if len(batch):
                    found = True
                    yield self._on_device(batch)
            _check_found(found, task)
            epoch, step = epoch + 1, 0

    def _loader(self, task: Task, order: EpochOrder) -> Loader:
        """The loaders of all tasks live at once and share the processes that were asked for."""
        workers = min(self.load.num_workers, max(1, self.load.num_workers // len(self.tasks)))
        return make_loader(
            task,
            self.encoder.preprocess.geometry,
            order,
            num_workers=workers,
            pin_memory=self.runtime.pin_memory,
            full_decode=self.load.full_decode,
        )

    def _on_device(self, batch: Batch) -> Tensor:
        return self.encoder.preprocess.of_bytes(batch.to(self.device).pixels)

    def tower(self) -> nn.Module:
        """A copy of the encoder's image tower, on the device, without gradient; :meth:`fill` gives it other weights."""
        return copy.deepcopy(self.encoder.image_tower).requires_grad_(False)

    def fill(self, module: nn.Module, weights: Weights, prefix: str = TOWER) -> None:
        """Copy a model's tensors into ``module``, whose names follow ``prefix``; those that the model lacks are the encoder's."""
        own = self.encoder.model.state_dict()
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                full = prefix + name
                tensor.copy_(weights.read(full) if full in weights.specs else own[full])

    def logits(self, features: Tensor, model: str) -> Tensor:
        """exp(logit_scale) z W^T [b, C] in float32, z the unit vectors of an image tower's ``features`` [b, D]."""
        return self.encoder.logits(F.normalize(features.float(), dim=-1), self.heads[model].to(features.device))


class LazyHeads(dict[str, Tensor]):
    """The zero-shot heads of tasks by model name, each made when it is first asked for: some methods need none."""

    def __init__(self, encoder: Encoder, tasks: Mapping[str, Task], folder: Path | None = None) -> None:
        super().__init__()
        self._heads, self._tasks = Heads(encoder, folder), tasks

    def __missing__(self, model: str) -> Tensor:
        self[model] = self._heads.of(self._tasks[model])
        return self[model]


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, where it is or, if that device has none, on the CPU."""
    return (tensor.detach().cpu() if tensor.device.type == "mps" else tensor.detach()).double()


def _check_found(found: bool, task: Task) -> None:
    if not found:
        raise UserError(f"No {task.split} image of {task.name} could be read, so there is nothing to merge by.")
