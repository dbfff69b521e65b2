"""Fit an encoder to a task: cross-entropy over all class prompts, best checkpoint by validation accuracy, resumable anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common import stages
from common.errors import Interrupted, UserError
from common.stages import stage, staged
from engine.classifier import Classifier
from engine.evaluate import Evaluation
from engine.inputs import Inputs, check_unreadable
from engine.order import EpochOrder
from engine.runtime import Runtime
from engine.schedule import learning_rate
from engine.signals import StopRequest, stop_requests
from engine.state import Progress, load_state, save_state
from models.tunings import trained_parameters

SAVING_SHARE = 0.05  # of the time may go to saving the state at the ends of epochs: that of a large encoder takes seconds
CHECK_EVERY = 16  # steps between two looks at the losses on an accelerator, since each look waits for it
BETA2 = 0.99  # of Adam and AdamW, as published with IIMM; torch's own default is 0.999

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters, lr, wd, beta2=BETA2: torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=wd),
    "Adam": lambda parameters, lr, wd, beta2=BETA2: torch.optim.Adam(parameters, lr=lr, betas=(0.9, beta2), weight_decay=wd),
    "AdamW": lambda parameters, lr, wd, beta2=BETA2: torch.optim.AdamW(parameters, lr=lr, betas=(0.9, beta2), weight_decay=wd),
}


@dataclass(frozen=True)
class FitOptions:
    """How to train; the defaults are the published ones."""

    epochs: int = 30
    steps: int | None = None  # optimizer steps in all, instead of epochs; the last epoch ends where they do
    lr: float = 1e-6
    wd: float = 1e-4
    optimizer: str = "SGD"
    beta2: float = BETA2  # of Adam and AdamW
    schedule: str = "constant"
    warmup: int = 0  # optimizer steps
    clip_norm: float | None = None
    save_minutes: float = 10.0  # an unfinished epoch is saved that often
    progress: bool = False


@dataclass(frozen=True)
class FitFiles:
    """Where the state of an unfinished run lies, and how a checkpoint is written: ``save(kind, epoch, val_accuracy)``."""

    state: Path
    save: Callable[[str, int, float], None]


class Fit:
    """One training run. :meth:`run` does what is left of it."""

    def __init__(
        self,
        runtime: Runtime,
        classifier: Classifier,
        inputs: Inputs,
        order: EpochOrder,
        options: FitOptions,
        files: FitFiles,
        settings: Mapping[str, Any],
    ) -> None:
        self.runtime, self.inputs, self.order = runtime, inputs, order
        self.options, self.files, self.settings = options, files, settings
        self.classifier = classifier.to(runtime.device)
        self.parameters = trained_parameters(classifier.encoder)
        optimizer = OPTIMIZERS[options.optimizer](list(self.parameters.values()), options.lr, options.wd, options.beta2)
        self.model, self.optimizer = runtime.accelerator.prepare(self.classifier, optimizer)
        self.scaler = runtime.accelerator.scaler
        self.steps = options.steps or options.epochs * order.steps
        self.epochs = -(-self.steps // order.steps)
        self.progress = Progress()
        self._losses: list[Tensor] = []
        self._saved_at = self._started = time.monotonic()
        self._saving = 0.0  # seconds that the last save took

    def resume(self) -> None:
        """Take up the state that an earlier attempt left."""
        self.progress = load_state(self.files.state, self.parameters, self._plain_optimizer(), self.scaler, self.settings)
        self.progress.loss_sum *= self.runtime.is_main  # it was stored as the sum over all processes
        self._started = time.monotonic() - self.progress.seconds

    def run(self) -> Progress:
        """Train to the last epoch; raises :class:`Interrupted` after saving when a signal asks to stop."""
        with stop_requests() as stop:
            if self.progress.before is None:
                self._measure_before()
            while self.progress.epoch < self.epochs:
                self._epoch(stop)
        return self.progress

    def _measure_before(self) -> None:
        self.progress.before = self._validate().top1
        self.runtime.say(f"before training  validation {self.progress.before:.4f}")

    @staged("validation")
    def _validate(self) -> Evaluation:
        return self.inputs.validate(self.classifier)

    def _epoch(self, stop: StopRequest) -> None:
        progress, began = self.progress, time.monotonic()
        self.order.set(progress.epoch, progress.step)
        for step, micro_batches in self._steps():
            self._step(step, micro_batches)
            progress.step += 1
            self._check_losses()
            self._stop_or_save(stop)
        self._check_losses(now=True)
        self._finish_epoch(began)

    def _steps(self) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
        """(optimizer step within the epoch, its micro-batches) for what is left of the epoch."""
        stream = self.inputs.micro_batches()
        todo = range(self.progress.step, self._steps_in_epoch())
        name = f"epoch {self.progress.epoch + 1}/{self.epochs}"
        for step in tqdm(todo, desc=name, disable=not (self.options.progress and self.runtime.is_main), leave=False):
            yield step, list(islice(stream, self.order.micro_batches(step)))

    def _steps_in_epoch(self) -> int:
        """Optimizer steps of the epoch at hand: all, or what is left of the run."""
        return min(self.order.steps, self.steps - self.progress.epoch * self.order.steps)

    def _step(self, step: int, micro_batches: list[tuple[Tensor, Tensor]]) -> None:
        lr = self._learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        last = len(micro_batches) - 1
        losses = [self._backward(step, number, *batch, last=number == last) for number, batch in enumerate(micro_batches)]
        with stage("optimizer"):
            if self.options.clip_norm is not None:
                self.runtime.accelerator.clip_grad_norm_(list(self.parameters.values()), self.options.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        stages.count("images trained on", sum(len(images) for images, _ in micro_batches))
        self._losses.append(torch.stack(losses).sum())

    def _backward(self, step: int, number: int, images: Tensor, labels: Tensor, *, last: bool) -> Tensor:
        """Add one micro-batch's gradient; return its part of the step's mean loss (this process's share)."""
        size = min(self.order.batch_size, self.order.step_size(step) - number * self.order.batch_size)
        weight = 1 / self.order.step_size(step) if self.order.share(size) else 0.0
        accelerator = self.runtime.accelerator
        with torch.enable_grad() if last else accelerator.no_sync(self.model):
            loss = F.cross_entropy(self.model(images).float(), labels, reduction="sum") * weight
            with stage("backward"):
                accelerator.backward(loss * self.runtime.world)  # processes average their gradients; the sum is wanted
        return loss.detach()

    def _learning_rate(self, step: int) -> float:
        done = self.progress.epoch * self.order.steps + step
        return learning_rate(done, self.steps, peak=self.options.lr, schedule=self.options.schedule, warmup=self.options.warmup)

    def _check_losses(self, now: bool = False) -> None:
        """Stop at a loss that is not finite; add the finite ones up."""
        if not self._losses or not (now or self.runtime.device.type == "cpu" or len(self._losses) == CHECK_EVERY):
            return
        first = self.progress.step - len(self._losses)
        for step, loss in enumerate(torch.stack(self._losses).tolist(), start=first):
            if not math.isfinite(loss):
                done = self.progress.epoch * self.order.steps + step + 1
                raise UserError(
                    f"The loss became {loss} in step {done} (epoch {self.progress.epoch + 1}) at learning rate "
                    f"{self._learning_rate(step):g}; use a smaller --lr, or --warmup, or --clip-norm."
                )
            self.progress.loss_sum += loss * self.order.step_size(step)
        self._losses.clear()

    def _stop_or_save(self, stop: StopRequest) -> None:
        if self._agreed(bool(stop)):
            self._check_losses(now=True)
            self._save_state()
            raise Interrupted(f"Stopped by {stop.name or 'a signal'}; the state is saved, --resume goes on from it.")
        if self._agreed(time.monotonic() - self._saved_at > 60 * self.options.save_minutes):
            self._check_losses(now=True)
            self._save_state()

    def _agreed(self, wish: bool) -> bool:
        """Whether any process wishes so; several processes ask one another every few steps only."""
        if self.runtime.world == 1:
            return wish
        if self.progress.step % CHECK_EVERY and self.progress.step != self._steps_in_epoch():
            return False
        return bool(self.runtime.total(torch.tensor([float(wish)], device=self.runtime.device)).item())

    def _finish_epoch(self, began: float) -> None:
        progress = self.progress
        val = self._validate()
        self._gather_unreadable()
        loss = self._summed_loss() / min(self.order.n, self._steps_in_epoch() * self.order.step_size(0))
        progress.epoch += 1
        better = val.top1 > progress.best_accuracy
        if better:
            progress.best_accuracy, progress.best_epoch = val.top1, progress.epoch
        seconds = time.monotonic() - began
        progress.history.append({"epoch": progress.epoch, "loss": loss, "val_accuracy": val.top1, "seconds": round(seconds, 3)})
        progress.step, progress.loss_sum = 0, 0.0
        self._report(seconds)
        if better:
            self._on_main(lambda: self.files.save("best", progress.epoch, val.top1))
        if progress.epoch == self.epochs:
            self._on_main(lambda: self.files.save("last", progress.epoch, val.top1))
            self._note_time()  # the run ends here, and with it the use of a state
        elif self._agreed(time.monotonic() - self._saved_at > self._saving / SAVING_SHARE):
            self._save_state()

    def _report(self, seconds: float) -> None:
        progress, last = self.progress, self.progress.history[-1]
        self.runtime.say(
            f"epoch {progress.epoch:>3}/{self.epochs}  loss {last['loss']:.4f}  validation {last['val_accuracy']:.4f}  "
            f"best {progress.best_accuracy:.4f} (epoch {progress.best_epoch})  {seconds:.1f} s"
        )
        self.runtime.accelerator.log(
            {"loss": last["loss"], "val_accuracy": last["val_accuracy"], "lr": self._last_rate()}, step=progress.epoch
        )

    def _last_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _save_state(self) -> None:
        began = time.monotonic()
        self._note_time()
        self._gather_unreadable()
        progress = replace(self.progress, loss_sum=self._summed_loss())
        optimizer = self._plain_optimizer()
        self._on_main(lambda: save_state(self.files.state, self.parameters, optimizer, self.scaler, progress, self.settings))
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - began

    def _note_time(self) -> None:
        self.progress.seconds = time.monotonic() - self._started

    def _gather_unreadable(self) -> None:
        """Bring together which images the processes could not read; too many end the run."""
        self.progress.unreadable |= dict(self.runtime.gather_objects([*self.inputs.unreadable.items()]))
        check_unreadable(self.progress.unreadable, self.inputs.max_skipped)

    def _summed_loss(self) -> float:
        """The sum of the losses seen in this epoch, over all processes."""
        if self.runtime.world == 1:
            return self.progress.loss_sum  # untouched, so that a resumed run adds to exactly this number
        return float(self.runtime.total(torch.tensor([self.progress.loss_sum], device=self.runtime.device)).item())

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    @staged("checkpoint")
    def _on_main(self, work: Callable[[], None]) -> None:
        if self.runtime.is_main:
            work()
        self.runtime.accelerator.wait_for_everyone()
