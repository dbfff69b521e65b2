"""The training of few-shot methods: a few parameters, batches of the labelled images, a published recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from common.errors import UserError
from engine.order import EpochOrder
from engine.schedule import learning_rate

T = TypeVar("T")
Facts = dict[str, float | int | str]  # what a result's file says of a training


@dataclass(frozen=True)
class Recipe:
    """How to train. The learning rate falls along half a cosine, from ``lr`` before the first step to ``least_lr`` after the last.

    ``epochs`` are passes over the labelled images; a method may instead say how many steps it takes in all. ``by_epoch`` lowers the
    rate after each epoch instead of each step, and ``first_lr`` is that of the first epoch where it has its own. ``eps`` is
    AdamW's; SGD has a momentum of 0.9.
    """

    lr: float
    batch_size: int
    epochs: int = 0
    optimizer: str = "AdamW"
    wd: float = 0.01
    eps: float = 1e-8
    least_lr: float = 0.0
    by_epoch: bool = False
    first_lr: float | None = None

    def rate(self, step: int, steps: int, per_epoch: int) -> float:
        """The learning rate of a step (from 0) out of ``steps``."""
        if self.first_lr is not None and step < per_epoch:
            return self.first_lr
        done = step - step % per_epoch if self.by_epoch else step
        return self.least_lr + learning_rate(done, steps, peak=self.lr - self.least_lr, schedule="cosine")

    def optimizer_of(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """A new optimizer of ``parameters``."""
        if self.optimizer == "SGD":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=self.wd)
        return torch.optim.AdamW(parameters, lr=self.lr, eps=self.eps, weight_decay=self.wd)


@dataclass
class Learner:
    """Trains ``parameters`` by the gradient of ``loss(batch)``, the mean over a batch.

    ``scaler`` is for fp16. ``losses`` are the means over the batches of each call of :meth:`epoch`. The order of all steps and
    what is in them come from the caller, so the same batches give the same parameters.
    """

    parameters: Sequence[Tensor]
    loss: Callable[[Any], Tensor]
    recipe: Recipe
    steps: int
    per_epoch: int
    scaler: Any = None
    done: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = self.recipe.optimizer_of(self.parameters)

    def epoch(self, batches: Iterable[T]) -> None:
        """A step for each of ``batches``, until all steps are done; raises UserError when a loss is not finite."""
        losses = []
        for batch in batches:
            if self.done == self.steps:
                break
            losses.append(self._step(batch))
        if not losses:
            return
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise UserError(f"The loss of a trained method became {mean} by step {self.done}; use --precision fp32, or other --methods.")
        self.losses.append(mean)

    def _step(self, batch: Any) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.done, self.steps, self.per_epoch)
        with torch.enable_grad():
            loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.done += 1
        return loss.detach()

    @property
    def facts(self) -> Facts:
        """The recipe, the steps, and the mean loss of the first and of the last epoch."""
        recipe = self.recipe
        said: Facts = {"optimizer": recipe.optimizer, "lr": recipe.lr, "wd": recipe.wd, "batch_size": recipe.batch_size, "steps": self.done}
        return said | ({"first_loss": self.losses[0], "last_loss": self.losses[-1]} if self.losses else {})


def learn(parameters: Sequence[Tensor], loss: Callable[[Tensor], Tensor], images: int, recipe: Recipe, seed: int) -> Facts:
    """Train on features: ``loss(rows)`` of each batch of ``images``, ``rows`` int64 on the device; returns the facts.

    An epoch is a permutation of the images that (seed, epoch) draw on the CPU, cut into batches; its last may be smaller. ``parameters``
    change in place and need no gradient afterwards.
    """
    order = EpochOrder(images, recipe.batch_size, seed=seed)
    for parameter in parameters:
        parameter.requires_grad_(True)
    learner = Learner(parameters, loss, recipe, recipe.epochs * order.steps, order.steps)
    for epoch in range(recipe.epochs):
        order.set(epoch)
        learner.epoch(_rows(order, parameters[0].device))
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    return learner.facts


def _rows(order: EpochOrder, device: torch.device) -> Iterator[Tensor]:
    """The batches of an epoch; its permutation is copied to the device once."""
    batches = list(order)
    return iter(torch.tensor([row for batch in batches for row in batch], device=device).split([len(batch) for batch in batches]))
