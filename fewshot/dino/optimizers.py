"""The optimizers of self-distillation: two groups of parameters, of which one decays; LARS; clipping of each parameter alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.dino.options import OPTIMIZERS

MOMENTUM = 0.9  # of SGD and LARS
TRUST = 0.001  # eta of LARS
EPSILON = 1e-6  # beside a gradient's norm


def decays(parameter: Tensor) -> bool:
    """Whether weight decay is for this parameter: for matrices, not for biases and other vectors."""
    return parameter.ndim > 1


def make_optimizer(name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW (0.9, 0.999), SGD or LARS, with the parameters that decay in the first group and the others in the second.

    Learning rate and weight decay are 0 until every step sets them, the decay in the first group alone.
    """
    ordered = list(parameters)
    groups = [{"params": [one for one in ordered if decays(one) == wanted]} for wanted in (True, False)]
    return _MAKERS[name](groups)


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling: SGD with momentum whose steps are in proportion to the length of each matrix.

        d = g + wd w         q = eta |w| / |d|, and 1 where either length is 0         m = momentum m + q d         w = w - lr m

    Vectors have neither decay nor scaling: d = g, q = 1. Source: You, Gitman and Ginsburg, Large Batch Training of Convolutional
    Networks (2017), algorithm 1, with the decay inside |d|, as self-supervised training uses it.
    """

    def __init__(self, params: Any, lr: float = 0.0, weight_decay: float = 0.0, momentum: float = MOMENTUM, trust: float = TRUST) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not supported."""
        if closure is not None:
            raise ValueError("Lars takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        update = grad
        if decays(parameter):
            update = grad.add(parameter, alpha=group["weight_decay"])
            ratio = group["trust"] * parameter.norm() / update.norm()
            update = update * torch.where((ratio > 0) & ratio.isfinite(), ratio, 1.0)  # 0 or infinite where a length is 0
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        parameter.add_(state["momentum_buffer"].mul_(group["momentum"]).add_(update), alpha=-group["lr"])


_MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM),
    "lars": Lars,
}
assert set(_MAKERS) == set(OPTIMIZERS)


def clip_each(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale the gradient g of each parameter alone by min(1, ``largest`` / (|g| + 1e-6)); none of them is read by the host."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if grads:
        factors = (largest / (torch.stack(torch._foreach_norm(grads)) + EPSILON)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(factors.unbind()))
