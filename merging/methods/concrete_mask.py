"""The binary Concrete distribution: masks between 0 and 1 that can be learnt by their gradient.

``logits`` x have a tensor's shape, and so has a mask m drawn from them. Masks are rescaled to mean 1 in each of the ``parts``
of a tensor (query, key and value of a packed one), so that they move weight about and do not take it away on the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merging.coefficients import parts_of

SMALLEST = 2.0**-23  # of the uniform numbers and of 1 minus them: float32 tells these from 0 and 1


def sample(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """m = sigmoid((log u - log(1 - u) + x) / T), u uniform in (0, 1). Source: Maddison et al., ICLR 2017, binary case."""
    u = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype).clamp_(SMALLEST, 1 - SMALLEST)
    return u.logit_().add_(logits).div_(temperature).sigmoid_()


def rescaled(mask: Tensor, parts: int = 1) -> Tensor:
    """m' = m / mean(m), the mean over each part; a part that is all 0 stays so."""
    rows = mask.reshape(parts, -1)
    return (rows / rows.mean(dim=1, keepdim=True).clamp_min(torch.finfo(mask.dtype).tiny)).reshape(mask.shape)


def logits_gradient(gradient: Tensor, mask: Tensor, temperature: float, parts: int = 1) -> Tensor:
    """dL/dx from a = dL/dm' and the sample m, all [*shape].

    dL/dm = (a - mean(a ⊙ m')) / mean(m), the second term through the mean, and dm/dx = m (1 - m) / T.
    """
    a, m = gradient.reshape(parts, -1), mask.reshape(parts, -1)
    mean = m.mean(dim=1, keepdim=True)
    through_mean = (a * m).mean(dim=1, keepdim=True) / mean
    return ((a - through_mean) * m * (1 - m) / (mean * temperature)).reshape(mask.shape)


@dataclass(frozen=True)
class Masks:
    """Mask logits of all merged tensors, which start at 0 and are shared by all tasks, and the numbers to draw masks by."""

    logits: Mapping[str, nn.Parameter]
    temperature: float
    generator: torch.Generator

    @classmethod
    def like(cls, base: Mapping[str, Tensor], temperature: float, seed: int) -> Masks:
        """For tensors of these shapes, on their device."""
        logits = {name: nn.Parameter(torch.zeros_like(tensor)) for name, tensor in base.items()}
        return cls(logits, temperature, torch.Generator(next(iter(base.values())).device).manual_seed(seed))

    @torch.no_grad()
    def draw(self) -> dict[str, Tensor]:
        """A sample m of every mask, not rescaled."""
        return {name: sample(x, self.temperature, self.generator) for name, x in self.logits.items()}

    @torch.no_grad()
    def final(self, kind: str, *, random: bool = False) -> dict[str, Tensor]:
        """The masks to merge by, rescaled: sigmoid(x), or with ``kind`` discrete 1 where that is at least 1/2 and else 0.

        ``random`` draws them as the released code does: continuous ones as in learning, discrete ones by Bernoulli(sigmoid(x)).
        """
        masks = self.draw() if random and kind == "continuous" else {name: x.sigmoid() for name, x in self.logits.items()}
        if kind == "discrete":
            masks = {name: self._discrete(mask, random) for name, mask in masks.items()}
        return {name: rescaled(mask, len(parts_of(name))) for name, mask in masks.items()}

    def _discrete(self, probabilities: Tensor, random: bool) -> Tensor:
        return torch.bernoulli(probabilities, generator=self.generator) if random else (probabilities >= 0.5).to(probabilities.dtype)
