"""The teacher of self-distillation: a moving average of the student, which alone is measured and kept."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewshot.dino.head import DinoHead
from models.encoder import Encoder
from models.tunings import trained_parameters

M = TypeVar("M", bound=nn.Module)


class Teacher:
    """The student's adapters and head as they were over the last steps. ``encoder`` shares all frozen weights with the student's.

    A head that does not train is the student's own. Source: Caron et al. (ICCV 2021), section 3.1.
    """

    def __init__(self, encoder: Encoder, head: DinoHead) -> None:
        self.encoder, self.head = sharing_copy(encoder), sharing_copy(head)
        self._students = [*_trained(encoder), *_trained(head)]
        self._own = [*_trained(self.encoder), *_trained(self.head)]

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """t = momentum t + (1 - momentum) s for each of the student's parameters s that train."""
        torch._foreach_mul_(self._own, momentum)
        torch._foreach_add_(self._own, self._students, alpha=1 - momentum)

    def buffers(self) -> dict[str, Tensor]:
        """Every tensor that is the teacher's own, by name, to be saved and restored in place."""
        adapters = {f"teacher/{name}": parameter.detach() for name, parameter in trained_parameters(self.encoder).items()}
        head = {f"teacher_head/{name}": value.detach() for name, value in self.head.named_parameters() if value.requires_grad}
        return {**adapters, **head}


def sharing_copy(module: M) -> M:
    """A copy of ``module`` with parameters of its own where they train; frozen ones and buffers are the same tensors in both."""
    shared: list[object] = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    shared += [*module.buffers(), getattr(module, "_tokenizer", None)]  # an encoder's tokenizer is large, and never changes
    return copy.deepcopy(module, {id(one): one for one in shared})


def _trained(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
