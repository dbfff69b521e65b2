"""Task vectors with a coefficient for each task, or for each task and tensor: their merge and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.method import base_of, read
from merging.weights import Pool

PACKED = ("in_proj_weight", "in_proj_bias", "attn.qkv.weight", "attn.qkv.bias")  # query, key and value, one below the other
ONE_FOR_ALL = "all"


def parts_of(name: str) -> tuple[str, ...]:
    """The tensors that are stored as the one called ``name``: itself, or query, key and value."""
    return tuple(f"{name}[{part}]" for part in "qkv") if name.endswith(PACKED) else (name,)


@dataclass(frozen=True)
class Columns:
    """What the columns of the coefficients λ [K, C] stand for, and which of them, p in number, are those of each tensor.

    A tensor is cut along its first dimension into p equal parts, each with a coefficient of its own.
    """

    names: tuple[str, ...]
    of: Mapping[str, slice]

    @classmethod
    def task_wise(cls, tensors: Iterable[str]) -> Columns:
        """One coefficient for each task, C = 1."""
        return cls((ONE_FOR_ALL,), dict.fromkeys(tensors, slice(0, 1)))

    @classmethod
    def layer_wise(cls, tensors: Iterable[str]) -> Columns:
        """One coefficient for each task and tensor, biases and norms included.

        Query, key and value have one each, although open_clip packs them into one tensor: so C is 199 for ViT-B/32, as under
        Hugging Face's names, by which the published numbers were made; packed they would share theirs, and C would be 151.
        """
        names: list[str] = []
        of = {}
        for tensor in tensors:
            of[tensor] = slice(len(names), len(names) + len(parts_of(tensor)))
            names += parts_of(tensor)
        return cls(tuple(names), of)


def combined(coefficients: Tensor, vectors: Tensor) -> Tensor:
    """Σ_k λ_k τ_k [*shape], for ``coefficients`` λ [K, p] of the p parts of ``vectors`` τ [K, *shape]; in the dtype of λ."""
    parts = vectors.to(coefficients.dtype).reshape(*coefficients.shape, -1)
    summed = [own @ of_part for own, of_part in zip(coefficients.T, parts.unbind(1), strict=True)]
    return (summed[0] if len(summed) == 1 else torch.cat(summed)).reshape(vectors.shape[1:])


def contracted(gradient: Tensor, vectors: Tensor, parts: int) -> Tensor:
    """dL/dλ [K, p] = <dL/dθ, τ_k>, part by part, from dL/dθ [*shape] and τ [K, *shape]."""
    own = vectors.to(gradient.dtype).reshape(len(vectors), parts, -1)
    return torch.stack([part @ of_part for part, of_part in zip(own.unbind(1), gradient.reshape(parts, -1), strict=True)], dim=1)


@dataclass(frozen=True)
class TaskVectors:
    """θ_0 and the task vectors τ_k of all merged tensors, in memory together, as learning needs them in every step.

    ``base`` has [*shape] and ``vectors`` [K, *shape] by name; ``mask``, where there is one, gives a factor m [*shape] that all tasks share.
    Memory: K + 1 encoders; in bfloat16 ``vectors`` take half of theirs.
    """

    base: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]
    columns: Columns
    mask: Callable[[str], Tensor] | None = None

    @classmethod
    def of(cls, pool: Pool, columns: Columns, device: torch.device, dtype: torch.dtype = torch.float32) -> TaskVectors:
        """Those of ``pool``, brought to ``device`` one tensor at a time."""
        base = base_of(pool, "A task vector")
        vectors = {name: pool.task_vectors(name).to(device, dtype) for name in pool.merged}
        return cls({name: read(base, name).to(device) for name in pool.merged}, vectors, columns)

    def summed(self, coefficients: Tensor, name: str) -> Tensor:
        """Σ_k λ_k τ_k of a tensor, for all coefficients [K, C]."""
        return combined(coefficients[:, self.columns.of[name]], self.vectors[name])

    def merged(self, coefficients: Tensor, name: str) -> Tensor:
        """θ_0 + m ⊙ Σ_k λ_k τ_k of a tensor: the mask is applied to the sum, once and not K times."""
        tau = self.summed(coefficients, name)
        return self.base[name] + (tau if self.mask is None else tau * self.mask(name))

    def gradient(self, of_tensors: Mapping[str, Tensor]) -> Tensor:
        """dL/dλ [K, C] from dL/dθ by tensor; a tensor without one has no part in the loss.

        The chain rule by hand: dL/dλ_k = Σ_tensors <m ⊙ dL/dθ, τ_k>, one contraction of each tensor however many the losses, instead of
        a graph of K products for every tensor that each loss goes back through.
        """
        count = len(next(iter(self.vectors.values())))
        total = next(iter(of_tensors.values())).new_zeros(count, len(self.columns.names))
        for name, gradient in of_tensors.items():
            own, masked = self.columns.of[name], gradient if self.mask is None else gradient * self.mask(name)
            total[:, own] += contracted(masked, self.vectors[name], own.stop - own.start)
        return total
