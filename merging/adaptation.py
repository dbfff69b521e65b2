"""Learning how to merge at test time: the entropy of the merged encoder's answers on unlabelled images, and its gradient.

What is learnt (coefficients, masks) decides the merged tensors, and the loss is a function of these alone. So the merged tensors are
leaves of an ordinary backward pass, which every task's loss goes through by itself, and the gradient is carried on from them to what is
learnt once, by a formula: no graph of the merge is kept. Source of the loss: AdaMerging (Yang et al., ICLR 2024), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import UserError
from engine.signals import StopRequest, stop_requests
from merging.data import TOWER, MergeData
from merging.method import MergeTensor
from merging.resuming import Batches, Loop

Objective = Callable[[MergeTensor], tuple[float, Mapping[str, Tensor]]]  # merged tensors -> the loss, and its gradient by tensor

SETTLED = 1e-3  # relative; a mean loss that falls by less from one stretch of steps to the next has reached its plateau


def entropy(logits: Tensor) -> Tensor:
    """The mean over images of H = -Σ_c p_c log(p_c + 1e-8), p = softmax(logits [B, C]); a scalar, float32."""
    p = logits.float().softmax(dim=-1)
    return -(p * (p + 1e-8).log()).sum(dim=-1).mean()


class Entropies:
    """An :data:`Objective`: the sum over tasks of the mean entropy of the answers to the next batch of each task's images.

    Each call takes fresh batches. The tower is a copy of the encoder's, into which the merged tensors are written. Returned is the mean
    over tasks, which is easier to read; the gradient is that of the sum, as published. Gradients stay valid until the next call.
    """

    def __init__(self, data: MergeData, models: Iterable[str], tensors: Sequence[str], batch_size: int) -> None:
        if data.runtime.precision == "fp16":
            raise UserError("Gradients of entropies vanish in fp16; use --precision bf16 or fp32.")
        self.batches = Batches(data, models, batch_size)
        self.data, self.tower = with_own_heads(data, self.batches.models), data.tower()
        own = self.tower.state_dict(keep_vars=True)
        self.tensors: dict[str, Tensor] = {name: own[name.removeprefix(TOWER)] for name in tensors}
        self.leaves = {name: tensor for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)}
        for leaf in self.leaves.values():
            leaf.requires_grad_(True)

    def __call__(self, merged: MergeTensor) -> tuple[float, Mapping[str, Tensor]]:
        """The mean entropy and the gradient for the encoder with these tensors."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(merged(name))
        for leaf in self.leaves.values():
            leaf.grad = None
        losses = [self._backward(model, self.batches.next(model)) for model in self.batches.models]
        gradients = {name: leaf.grad for name, leaf in self.leaves.items() if leaf.grad is not None}
        return torch.stack(losses).mean().item(), gradients

    def _backward(self, model: str, pixels: Tensor) -> Tensor:
        """Add the gradient of one task's loss to those of the leaves."""
        with self.data.runtime.autocast():
            features = self.tower(pixels)
            loss = entropy(self.data.logits(features[0] if isinstance(features, tuple) else features, model))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def with_own_heads(data: MergeData, models: Collection[str]) -> MergeData:
    """``data`` with copies of the models' heads: no backward pass goes through tensors made in inference mode, as heads may be."""
    for model in models:
        data.task(model)  # tells of a model without one
    return replace(data, heads={model: data.heads[model].clone() for model in models})


def minimise(
    step: Callable[[], float], steps: int, *, what: str, plateau: int = 0, progress: bool = False, loop: Loop | None = None
) -> list[float]:
    """Take ``steps`` steps, each of which returns its loss; returns the losses.

    With a ``plateau`` it ends when the mean loss of that many steps is not at least 0.1 % below that of as many before them. With a
    ``loop`` the steps that an earlier run has taken are not taken again, and SIGTERM ends this one with its state saved. Raises
    :class:`UserError` for a loss that is not finite. ``what`` names the work in the progress line.
    """
    losses: list[float] = loop.losses if loop else []
    signals: AbstractContextManager[StopRequest] = stop_requests() if loop else nullcontext(StopRequest())
    with tqdm(total=steps, initial=len(losses), desc=what, disable=not progress, leave=False) as bar, signals as stop:
        while len(losses) < steps and not settled(losses, plateau):
            losses.append(step())
            if not isfinite(losses[-1]):
                raise diverged(what, len(losses), loop)
            bar.set_postfix(entropy=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
            if loop:
                loop.after_step(losses[-1], stop)
        if loop:
            loop.save()
    return losses


def diverged(what: str, step: int, loop: Loop | None) -> UserError:
    """The error for a loss that is not finite; no state is kept of what leads there."""
    if loop:
        loop.file.remove()
    return UserError(f"{what}: the entropy is not finite in step {step}; a smaller learning rate may help (--adapt-lr).")


def settled(losses: Sequence[float], plateau: int) -> bool:
    """Whether the last ``plateau`` losses are no better than those before; looked at once in so many steps, 0 means never."""
    if plateau < 1 or len(losses) < 2 * plateau or len(losses) % plateau:
        return False
    return sum(losses[-plateau:]) > (1 - SETTLED) * sum(losses[-2 * plateau : -plateau])
