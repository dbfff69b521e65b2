"""What adapters are trained for: the part of a training run in which the objectives differ.

The loop (:mod:`fewshot.adapter_training`) does for every objective, in each step::

    batch = the next images of this process, through objective.transform, in the batches of objective.order
    objective.before_step(step, optimizer)           learning rate, weight decay
    loss = objective.loss(batch, step); backward     gradients are then summed over processes
    objective.after_backward(step)                   clipping
    optimizer step
    objective.after_step(step)                       e.g. a teacher that follows

To add one: a file in ``fewshot/objectives/`` with a subclass of :class:`Objective`, and its line in ``fewshot/objectives/table.py``.
Whatever an objective draws comes from ``runtime.seed``, the epoch and the number of an image, so that neither the number of
processes nor a stop in between changes a result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets.task import Task
from engine.loading import Batch, Transform
from engine.runtime import Runtime
from engine.schedule import learning_rate
from fewshot.adapter_options import AdapterFit
from fewshot.order import Order, WholeBatches
from models.encoder import Encoder
from models.parallel_adapter import dropout_of
from models.preprocess import with_statistics
from models.tunings import trained_parameters


@dataclass(frozen=True)
class Step:
    """One optimizer step: the ``number``-th (from 0) of ``steps`` in the run, in ``epoch`` (from 0) of ``per_epoch`` steps."""

    number: int
    steps: int
    epoch: int
    per_epoch: int
    images: int  # of all processes


@dataclass(frozen=True)
class Setting:
    """What an objective is made of. ``encoder`` has the adapters, which alone train; it is on the device."""

    runtime: Runtime
    encoder: Encoder
    task: Task
    fit: AdapterFit
    options: Any = None  # the objective's own, see fewshot.objectives.table


class Objective(ABC):
    """An objective in its simplest form: the encoder's adapters, AdamW, the loop's schedule. Others override what they need."""

    name: ClassVar[str]
    released_statistics: ClassVar[tuple[Sequence[float], Sequence[float]]]  # mean and deviation of --preprocess as-released

    def __init__(self, setting: Setting) -> None:
        self.runtime, self.encoder, self.task = setting.runtime, setting.encoder, setting.task
        self.fit, self.options = setting.fit, setting.options
        self.preprocess = self.encoder.preprocess
        if self.fit.preprocess == "as-released":
            self.preprocess = with_statistics(self.encoder.preprocess, *self.released_statistics)

    @property
    def transform(self) -> Transform:
        """What loader processes make of an image: a picklable function to one uint8 tensor, of one shape for all images.

        Several crops of different sizes go into one tensor, flattened. Its draws come from torch's, NumPy's or Python's
        generator, which are seeded by (seed, epoch, image) around it.
        """
        return self.encoder.preprocess.geometry

    @property
    def order(self) -> Order:
        """Which images make which step: shuffled batches of ``fit.batch_size``, an incomplete last one is left out."""
        return WholeBatches(len(self.task), self.fit.batch_size, self.runtime.rank, self.runtime.world, self.runtime.seed)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by name: the adapters, and whatever is learnt beside them and discarded with the objective."""
        return trained_parameters(self.encoder)

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of :meth:`parameters`, of all of them and of nothing else."""
        return torch.optim.AdamW(self.parameters().values(), lr=self.fit.lr, weight_decay=self.fit.wd)

    def before_step(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """Set what changes from step to step; a function of the step alone."""
        lr = learning_rate(step.number, step.steps, peak=self.fit.lr, schedule=self.fit.schedule, warmup=self.fit.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr

    def features(self, batch: Batch, step: Step) -> Tensor:
        """The image tower's features [b, D] of a batch of bytes, not normalised, float32, with dropout in the adapters.

        What is dropped depends on seed, step and image.
        """
        images = self.step_key(step) * len(self.task) + batch.indices.to(batch.pixels.device)
        with dropout_of(self.encoder, images):
            return self.encoder.raw_image_features(self.preprocess.of_bytes(batch.pixels)).float()

    def step_key(self, step: Step) -> int:
        """A number that tells steps and seeds apart."""
        return (self.runtime.seed * 1_000_003 + step.number) % 2**31

    @abstractmethod
    def loss(self, batch: Batch, step: Step) -> Tensor:
        """This process's share of the step's loss: summed over processes, value and gradient are those of the whole step.

        ``batch`` holds the images of this process (``pixels`` on the device as :attr:`transform` makes them, ``labels``,
        ``indices``: numbers in the task), at least one; those that cannot be read are missing. It runs under autocast.
        """

    def after_backward(self, step: Step) -> None:  # noqa: B027 (most objectives leave them alone)
        """Change the gradients, which are complete and unscaled, before the optimizer sees them."""

    def after_step(self, step: Step) -> None:  # noqa: B027 (most have nothing that follows)
        """Follow the parameters after they have changed."""

    @property
    def kept(self) -> Encoder:
        """The encoder whose adapters are measured and saved; the one that trains unless a teacher follows it."""
        return self.encoder

    def buffers(self) -> Mapping[str, Tensor]:
        """What else changes with the steps: saved with the state of an unfinished run, and written back in place."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The objective's own hyper-parameters, as JSON: for the checkpoint, the record, and the check of a resumed run."""
        return {}
