"""The optimisation behind OTI and OVI: pseudo-tokens whose feature has the greatest cosine with a target.

Every item is a problem of its own (Mistretta et al., "Cross the Gap", ICLR 2025, section 4): with a frozen tower f and a
target t it minimises ``1 - cos(f(v), t)`` over its pseudo-tokens v, by AdamW from N(0, 0.02). Many are solved at a time, in one
tensor, only because that is faster: the start of each comes from its name, and its gradient does not know how many others
there are, so results depend neither on the batch nor on the order.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.stages import stage, staged
from inversion.published import LEARNING_RATE, SEED, STEPS, WEIGHT_DECAY

INITIAL_STD = 0.02
# The published loss is the mean over batches of 64. Adam is indifferent to the scale of a gradient but for its epsilon; with the
# same constant for any batch, the same is learnt in any.
PUBLISHED_BATCH = 64
ENCODE_CHUNK = 256  # items per pass when features are encoded anew
PARTS = (8, 4, 2, 1)  # a compiled batch shrinks to a half, a quarter, an eighth of its size: each is compiled once


class Tower(Protocol):
    """A frozen encoder as a function of the pseudo-tokens of B items: ``PseudoText`` or ``PseudoImage``."""

    shape: tuple[int, int]

    def features(self, pseudo_tokens: Tensor) -> Tensor:
        """Unit float32 [B, D] of pseudo-tokens [B, K, width], differentiable."""


@dataclass(frozen=True)
class InversionOptions:
    """How to optimise. The defaults are the published ones for OTI; OVI takes 1000 steps.

    ``snapshots`` are steps after which the pseudo-tokens are recorded besides the last one; 0 is the start. An item stops early
    when its cosine is at least ``stop_at_cosine``, or when its loss fell by less than ``stop_below`` over the last ``stop_over``
    steps; this is looked at after every ``check_every`` steps. ``compile`` compiles the loss and its gradient.
    """

    steps: int = STEPS["oti"]
    lr: float = LEARNING_RATE
    weight_decay: float = WEIGHT_DECAY
    seed: int = SEED
    snapshots: tuple[int, ...] = ()
    stop_at_cosine: float | None = None
    stop_below: float | None = None
    stop_over: int = 10
    check_every: int = 10
    compile: bool = False

    @property
    def recorded(self) -> tuple[int, ...]:
        """The steps after which pseudo-tokens are recorded, ascending; the last one always is. UserError for others than 0 to ``steps``."""
        if beyond := [step for step in self.snapshots if not 0 <= step <= self.steps]:
            raise UserError(f"Snapshot {beyond[0]} does not lie between 0 and the {self.steps} steps; leave it out, or take more steps.")
        return tuple(sorted({*self.snapshots, self.steps}))

    @property
    def stops_early(self) -> bool:
        """Whether items may stop before the last step."""
        return self.stop_at_cosine is not None or self.stop_below is not None


@dataclass(frozen=True, eq=False)
class Inverted:
    """The inversion of B items; S is the number of recorded steps, the last of which is the final one. Float32 on the CPU.

    ``pseudo_tokens`` [B, S, K, width]; their ``features``, unit [B, S, D], encoded anew in float32 without autocast; ``losses``
    [B, S], 1 - cosine of these to the target; ``curve`` [steps], the mean loss over the items before each step, as it was
    optimised; ``steps``, the S recorded ones; ``stopped`` int64 [B], how many steps each item took.
    """

    pseudo_tokens: Tensor
    features: Tensor
    losses: Tensor
    curve: Tensor
    steps: tuple[int, ...]
    stopped: Tensor


@staged("initial tokens")
def initial_tokens(names: Sequence[str], seed: int, shape: tuple[int, int]) -> Tensor:
    """The start of every item: float32 [N, K, width] ~ N(0, 0.02), drawn from a hash of ``seed`` and the item's name alone."""
    tokens = np.empty((len(names), *shape), dtype=np.float32)
    for row, name in zip(tokens, names, strict=True):
        key = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
        generator.standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(tokens) * INITIAL_STD


def invert(
    tower: Tower,
    targets: Tensor,
    names: Sequence[str],
    options: InversionOptions,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    pad_to: int = 0,
) -> Inverted:
    """Invert the ``targets`` float [B, D], on the tower's device, of the items called ``names``.

    ``autocast`` is the precision of the optimisation; bf16 needs no loss scaler, pseudo-tokens and Adam's state stay float32.
    A batch smaller than ``pad_to`` is filled up with copies, so that a compiled loss meets one shape only. Raises
    :class:`UserError` when a target or a loss is not finite.
    """
    _check_finite("target", targets, names, "its image or text cannot be encoded, look at it and at the weights")
    targets = F.normalize(targets.float(), dim=-1)
    start = initial_tokens(names, options.seed, tower.shape).to(targets.device)
    descent = _Descent(start, targets, options, pad_to)
    with torch.enable_grad():
        descent.run(tower, autocast)
    features = _encode(tower, descent.recorded.flatten(0, 1)).unflatten(0, (len(names), -1))
    losses = 1 - (features * targets[:, None]).sum(dim=-1)
    _check_finite("loss", losses, names, "use --precision fp32 or a lower --learning-rate")
    curve = descent.losses.mean(dim=1)
    of_items = (descent.recorded.cpu(), features.cpu(), losses.cpu())
    return Inverted(*of_items, curve.cpu(), descent.steps, descent.stopped.cpu())


class _Descent:
    """One batch of B items on its way down.

    ``tokens`` [live, K, width] are those of the items ``alive`` [live], the only ones that are still optimised. Some of these
    may be copies of the last one, which only fill the batch up.
    """

    def __init__(self, start: Tensor, targets: Tensor, options: InversionOptions, pad_to: int) -> None:
        batch, device = len(start), start.device
        self.options, self.steps = options, options.recorded
        self.alive = _filled(torch.arange(batch, device=device), pad_to)
        self.size = len(self.alive)
        self.tokens, self.targets = start[self.alive].requires_grad_(), targets[self.alive]
        self.optimiser = torch.optim.AdamW([self.tokens], options.lr, weight_decay=options.weight_decay, fused=_has_fused(device))
        self.losses = torch.zeros(options.steps, batch, device=device)  # before each step; read once, at the end
        self.recorded = start.new_empty(batch, len(self.steps), *start.shape[1:])
        self.stopped = torch.full((batch,), options.steps, device=device)

    def run(self, tower: Tower, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        """All steps. Without early stopping nothing in here waits for the device."""
        item_losses = _compiled() if self.options.compile else _item_losses
        with torch.no_grad(), autocast():
            tower.features(self.tokens[:1])  # what is constant in the tower is computed now, outside of what is compiled
        for step in range(self.options.steps):
            self._record(step)
            with stage("forward"), autocast():
                losses = item_losses(tower, self.tokens, self.targets)
            # Not torch.autograd.grad: its gradient may be a view with strides of its own, which a fused AdamW silently takes for others.
            self.optimiser.zero_grad()
            with stage("backward"):
                (losses.sum() / PUBLISHED_BATCH).backward(inputs=[self.tokens])
            self.losses[step, self.alive] = losses.detach()
            if self.options.stops_early and step > 0 and step % self.options.check_every == 0:
                self._stop(self._finished(step), step)
                if not len(self.alive):
                    return
            with stage("optimizer"):
                self.optimiser.step()
        self._record(self.options.steps)

    def _record(self, step: int) -> None:
        if step in self.steps:
            self.recorded[self.alive, self.steps.index(step)] = self.tokens.detach()

    def _finished(self, step: int) -> Tensor:
        """Which of the live items stop now, bool [live]; each by its own losses alone."""
        now, over = self.losses[step, self.alive], self.options.stop_over
        finished = torch.zeros_like(now, dtype=torch.bool)
        if self.options.stop_at_cosine is not None:
            finished |= 1 - now >= self.options.stop_at_cosine
        if self.options.stop_below is not None and step >= over:
            finished |= self.losses[step - over, self.alive] - now < self.options.stop_below
        return finished

    def _stop(self, finished: Tensor, step: int) -> None:
        """Record the ``finished`` items as they are, for all later steps too, and keep the others."""
        if not finished.any():
            return
        items, later = self.alive[finished], sum(recorded <= step for recorded in self.steps)
        self.recorded[items, later:] = self.tokens.detach()[finished][:, None]
        self.losses[step:, items] = self.losses[step, items]
        self.stopped[items] = step
        rows = (~finished).nonzero()[:, 0]
        if len(rows):
            rows = _filled(rows, self._static_size(len(rows)) if self.options.compile else 0)
        self._keep(rows)

    def _static_size(self, live: int) -> int:
        """The least size that holds ``live`` items among those that are compiled for."""
        return next(size for part in PARTS if (size := -(-self.size // part)) >= live)

    def _keep(self, rows: Tensor) -> None:
        """Only these ``rows`` of the live batch, of their gradient and of Adam's state; its count of steps stays."""
        gradient, state = self.tokens.grad, self.optimiser.state.pop(self.tokens)
        self.alive, self.targets = self.alive[rows], self.targets[rows]
        self.tokens = self.tokens.detach()[rows].requires_grad_()  # a new leaf: autograd holds on to the shape of the old one
        self.tokens.grad = None if gradient is None else gradient[rows]
        self.optimiser.param_groups[0]["params"] = [self.tokens]
        moments = {name: state[name][rows] for name in ("exp_avg", "exp_avg_sq")}
        self.optimiser.state[self.tokens] = {"step": state["step"], **moments}


def _item_losses(tower: Tower, pseudo_tokens: Tensor, targets: Tensor) -> Tensor:
    """1 - cosine of each item [B]."""
    return 1 - (tower.features(pseudo_tokens) * targets).sum(dim=-1)


@functools.cache
def _compiled() -> Callable[[Tower, Tensor, Tensor], Tensor]:
    return torch.compile(_item_losses, dynamic=False)  # type: ignore[no-any-return]


def _filled(rows: Tensor, size: int) -> Tensor:
    """``rows`` [n], and copies of the last of them until there are ``size``."""
    return rows[torch.arange(max(size, len(rows)), device=rows.device).clamp(max=len(rows) - 1)]


def _has_fused(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda", "mps")


@staged("encoding anew")
@torch.no_grad()
def _encode(tower: Tower, pseudo_tokens: Tensor) -> Tensor:
    """Features [N, D] in float32, whatever the precision of the optimisation."""
    with torch.autocast(pseudo_tokens.device.type, enabled=False):
        return torch.cat([tower.features(part) for part in pseudo_tokens.split(ENCODE_CHUNK)])


def _check_finite(what: str, values: Tensor, names: Sequence[str], remedy: str) -> None:
    wrong = (~values.isfinite()).any(dim=1).nonzero()[:, 0].tolist()
    if wrong:
        others = f" and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"The {what} of '{names[wrong[0]]}'{others} is not finite; {remedy}.")
