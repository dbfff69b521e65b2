"""The loop that trains adapters: steps, measures of validation images, and a state to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import stages
from common.errors import Interrupted, UserError
from common.stages import stage, staged
from datasets.task import Task
from engine.embed import LoadOptions, embed_images
from engine.inputs import check_unreadable
from engine.loading import Batch
from engine.runtime import Runtime
from engine.signals import StopRequest, stop_requests
from engine.state import load_state, save_state
from fewshot.adapter_inputs import AdapterInputs, measured
from fewshot.adapter_options import AdapterFit
from fewshot.objective import Objective, Step

CHECK_EVERY = 16  # steps between two looks at the losses on an accelerator, and between two questions to other processes


@dataclass
class AdapterProgress:
    """How far a run has come. ``epoch`` and ``step`` (within it) name the next step to do."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of the steps since the last measurement
    steps_since: int = 0
    seconds: float = 0.0
    before: dict[str, float] | None = None  # the measures before the first step
    best_overlap: float | None = None
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per measurement
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Keeping:
    """Where the state of an unfinished run lies, and how a checkpoint is written: ``save(kind, epoch, step, measures)``."""

    state: Path
    save: Callable[[str, int, int, Mapping[str, float]], None]


class AdapterLoop:
    """One run. :meth:`run` does what is left of it."""

    def __init__(
        self, objective: Objective, val: Task, fit: AdapterFit, load: LoadOptions, keeping: Keeping, settings: Mapping[str, Any]
    ) -> None:
        self.runtime, self.objective, self.val = objective.runtime, objective, val
        self.fit, self.load, self.keeping, self.settings = fit, load, keeping, settings
        self.inputs = AdapterInputs(self.runtime, objective, load)
        self.per_epoch = self.inputs.order.steps
        self.optimizer = objective.optimizer()
        self.parameters = _in_order_of(self.optimizer, objective.parameters())
        self.scaler = self.runtime.accelerator.scaler
        self.progress = AdapterProgress()
        self._losses: list[Tensor] = []
        self._saved_at = self._started = time.monotonic()

    def resume(self) -> None:
        """Take up the state that an earlier attempt left."""
        self.progress = load_state(self.keeping.state, self._tensors(), self.optimizer, self.scaler, self.settings, AdapterProgress)
        self._started = time.monotonic() - self.progress.seconds

    def run(self) -> AdapterProgress:
        """Train to the last epoch; raises :class:`Interrupted` after saving when a signal asks to stop."""
        with stop_requests() as stop:
            if self.progress.before is None:
                self.progress.before = self._measure()
                self.runtime.say("before training".ljust(40), _shown(self.progress.before))
            while self.progress.epoch < self.fit.epochs:
                self._epoch(stop)
        return self.progress

    def _epoch(self, stop: StopRequest) -> None:
        progress = self.progress
        batches = self.inputs.batches(progress.epoch, progress.step)
        name = f"epoch {progress.epoch + 1}/{self.fit.epochs}"
        hidden = not (self.fit.progress and self.runtime.is_main)
        for batch in tqdm(batches, desc=name, initial=progress.step, total=self.per_epoch, disable=hidden, leave=False):
            self._step(batch)
            progress.step += 1
            self._look_at_losses()
            if progress.step < self.per_epoch:
                if self.fit.validate_every and self._done % self.fit.validate_every == 0:
                    self._validate()
                self._stop_or_save(stop)
        self._validate()
        progress.epoch, progress.step = progress.epoch + 1, 0
        self._save_state()
        if progress.epoch < self.fit.epochs:
            self._stop_or_save(stop)

    @property
    def _done(self) -> int:
        """Optimizer steps done."""
        return self.progress.epoch * self.per_epoch + self.progress.step

    def _step(self, batch: Batch) -> None:
        images = self.inputs.order.images(self.progress.step)
        step = Step(self._done, self.fit.epochs * self.per_epoch, self.progress.epoch, self.per_epoch, images)
        self.objective.before_step(step, self.optimizer)
        with self.runtime.autocast():
            loss = self.objective.loss(batch, step)
        with stage("backward"):
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        sum_gradients(self.runtime, list(self.parameters.values()))
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.objective.after_backward(step)
        self._update()
        stages.count("images trained on", len(batch))
        self.objective.after_step(step)
        self._losses.append(loss.detach())

    @staged("optimizer")
    def _update(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _look_at_losses(self, now: bool = False) -> None:
        """Add up the losses, and stop at one that is not finite."""
        if not self._losses or not (now or self.runtime.device.type == "cpu" or len(self._losses) == CHECK_EVERY):
            return
        first = self._done - len(self._losses) + 1
        for number, loss in enumerate(self.runtime.total(torch.stack(self._losses)).tolist(), start=first):
            if not math.isfinite(loss):
                raise UserError(f"The loss became {loss} in step {number}; use a smaller --lr, or a longer warm-up.")
            self.progress.loss_sum += loss
            self.progress.steps_since += 1
        self._losses.clear()

    def _validate(self) -> None:
        """Measure the validation images, note and tell it; keep the adapters when their overlap is the least so far."""
        self._look_at_losses(now=True)
        progress, measures = self.progress, self._measure()
        loss = progress.loss_sum / max(1, progress.steps_since)
        progress.loss_sum, progress.steps_since = 0.0, 0
        progress.history.append({"epoch": progress.epoch + 1, "step": self._done, "loss": loss, **measures})
        self.runtime.say(f"epoch {progress.epoch + 1:>3}  step {self._done:>6}  loss {loss:.4f}".ljust(40), _shown(measures))
        self.runtime.accelerator.log({"loss": loss, **measures}, step=self._done)
        if progress.best_overlap is None or measures["overlap"] < progress.best_overlap:
            progress.best_overlap, progress.best_step = measures["overlap"], self._done
            if self.fit.keep == "overlap":
                self._save("best", measures)
        if self.fit.keep == "last" and self._done == self.fit.epochs * self.per_epoch:
            self._save("last", measures)

    @staged("validation")
    def _measure(self) -> dict[str, float]:
        images = embed_images(self.runtime, self.objective.kept, self.val, self.load)
        self.progress.unreadable |= dict(images.skipped.entries)
        return measured(images, self.val)

    def _save(self, kind: str, measures: Mapping[str, float]) -> None:
        self._on_main(lambda: self.keeping.save(kind, self.progress.epoch + 1, self._done, measures))

    def _stop_or_save(self, stop: StopRequest) -> None:
        if self._agreed(bool(stop)):
            self._save_state()
            raise Interrupted(f"Stopped by {stop.name or 'a signal'}; the state is saved, --resume goes on from it.")
        if self._agreed(time.monotonic() - self._saved_at > 60 * self.fit.save_minutes):
            self._save_state()

    def _agreed(self, wish: bool) -> bool:
        """Whether any process wishes so; several processes ask one another every few steps only."""
        if self.runtime.world == 1:
            return wish
        if self.progress.step % CHECK_EVERY:
            return False
        return bool(self.runtime.total(torch.tensor([float(wish)], device=self.runtime.device)).item())

    def _save_state(self) -> None:
        self._look_at_losses(now=True)
        progress = self.progress
        progress.seconds = time.monotonic() - self._started
        self._saved_at = time.monotonic()
        progress.unreadable |= dict(self.runtime.gather_objects([*self.inputs.unreadable.items()]))
        check_unreadable(progress.unreadable, self.load.max_skipped)
        self._on_main(lambda: save_state(self.keeping.state, self._tensors(), self.optimizer, self.scaler, progress, self.settings))

    def _tensors(self) -> dict[str, Tensor]:
        """What changes with the steps: the parameters in the order of the optimizer, then the objective's buffers."""
        return {**self.parameters, **{f"buffer.{name}": buffer for name, buffer in self.objective.buffers().items()}}

    @staged("checkpoint")
    def _on_main(self, work: Callable[[], None]) -> None:
        if self.runtime.is_main:
            work()
        self.runtime.accelerator.wait_for_everyone()


def sum_gradients(runtime: Runtime, parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes; what has none in a step has none in all of them, and stays so."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if runtime.world == 1 or not gradients:
        return
    total = runtime.total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _in_order_of(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The named parameters in the order in which the optimizer counts them."""
    names = {id(parameter): name for name, parameter in named.items()}
    return {names[id(parameter)]: parameter for group in optimizer.param_groups for parameter in group["params"]}


def _shown(measures: Mapping[str, float]) -> str:
    template = "overlap {overlap:.4f}  AUROC {auroc:.4f}  variance {within_variance:.4f} within, {between_variance:.4f} between"
    return template.format(**measures)
