"""What is merged: the tensors of a base and of models tuned from it, one at a time, under the base's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from merging.stream import Spec, spec_of

PART = 1 << 17  # elements: half a MiB of float32, so that those of eight models stay in a processor's cache


class Weights(Protocol):
    """The tensors of one model, read one at a time on the CPU."""

    @property
    def name(self) -> str:
        """What tables and reports call the model, e.g. ``sun397``."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Every tensor's shape and dtype."""

    def read(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor called ``name``, on the CPU, not to be written to; with ``part`` those elements of it, flattened: [n]."""


@dataclass(frozen=True)
class TensorWeights:
    """Weights that are in memory."""

    name: str
    tensors: Mapping[str, Tensor]

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Every tensor's shape and dtype."""
        return {name: spec_of(tensor) for name, tensor in self.tensors.items()}

    def read(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor called ``name`` itself, or a part of it, not a copy."""
        return part_of(self.tensors[name], part)


@dataclass(frozen=True)
class View:
    """Weights that are made as they are read: ``reader(name, part)`` gives a tensor, or a part of it."""

    name: str
    specs: Mapping[str, Spec]
    reader: Callable[[str, slice | None], Tensor]

    def read(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor called ``name``, or a part of it."""
        return self.reader(name, part)


def finite(weights: Weights) -> View:
    """``weights``, whose tensors are looked at as they are read: NaN and infinity are a :class:`UserError`."""

    def read(name: str, part: slice | None) -> Tensor:
        tensor = weights.read(name, part)
        if tensor.is_floating_point() and not is_finite(tensor):
            raise UserError(f"The tensor '{name}' of '{weights.name}' holds NaN or infinity; it cannot be merged.")
        return tensor

    return View(weights.name, weights.specs, read)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite. One would make the sum so too, which is quicker to look at than every element."""
    wide = tensor if tensor.itemsize == 8 else tensor.float()
    return bool(wide.sum().isfinite() or wide.isfinite().all())


@dataclass(frozen=True)
class Pool:
    """A base θ_0, K models θ_k tuned from it, and the names of the tensors that are merged; all other tensors are the base's.

    The base is None for methods that need none. All models have the merged tensors, in the base's shapes and dtypes.
    """

    base: Weights | None
    models: tuple[Weights, ...]
    merged: tuple[str, ...]

    @property
    def reference(self) -> Weights:
        """Whose names, shapes and dtypes the result has, and whose tensors where they are not merged: the base, or the first model."""
        return self.models[0] if self.base is None else self.base

    def stack(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor of all models, θ_1 ... θ_K: [K, *shape], float32; with ``part`` those elements of it: [K, n]."""
        shape = self.reference.specs[name].shape if part is None else (part.stop - part.start,)
        stacked = torch.empty((len(self.models), *shape), dtype=torch.float32)
        for row, model in zip(stacked, self.models, strict=True):
            row.copy_(model.read(name, part))
        return stacked

    def task_vectors(self, name: str, part: slice | None = None) -> Tensor:
        """The task vectors τ_k = θ_k - θ_0: [K, *shape], float32; with ``part`` those elements of them: [K, n]."""
        if self.base is None:
            raise ValueError("task vectors need a base")
        return self.stack(name, part).sub_(self.base.read(name, part).float())

    def parts(self, name: str) -> list[slice]:
        """A tensor in pieces of at most :data:`PART` elements, for what is done element by element in little memory."""
        size = prod(self.reference.specs[name].shape)
        return [slice(start, min(start + PART, size)) for start in range(0, size, PART)]

    def by_parts(self, name: str, merge: Callable[[slice], Tensor]) -> Tensor:
        """The tensor [*shape], float32, whose piece at ``part`` is ``merge(part)``: [n]."""
        merged = torch.empty(self.reference.specs[name].shape, dtype=torch.float32)
        for part in self.parts(name):
            merged.view(-1)[part] = merge(part)
        return merged


def make_pool(
    base: Weights | None,
    models: Sequence[Weights],
    chosen: Callable[[str], bool] = lambda name: True,
    optional: Callable[[str], bool] = lambda name: False,
) -> Pool:
    """The pool of these models, once they are found to fit. Merged are their floating-point tensors whose names are ``chosen``.

    All models may lack an ``optional`` tensor; it is the base's then. Raises :class:`UserError` for any other tensor that a model lacks,
    for one that the base has not, for another shape or dtype; and later, when a tensor that is read holds NaN.
    """
    reference = models[0] if base is None else base
    for model in models:
        _check_known(model, reference, chosen)
    of_models = {name: model.name for model in reversed(models) for name in model.specs}
    wanted = {name: spec for name, spec in reference.specs.items() if _may_be_merged(name, spec, chosen)}
    merged = tuple(name for name in wanted if name in of_models or not optional(name))
    for model in models:
        for name in merged:
            if name not in model.specs:
                raise UserError(
                    f"'{model.name}' lacks the tensor '{name}' ({wanted[name]}), which '{of_models.get(name, reference.name)}' has."
                )
    if not merged:
        raise UserError(f"'{models[0].name}' has no tensor that is to be merged; --towers and --only decide which are.")
    return Pool(base and finite(base), tuple(finite(model) for model in models), merged)


def _may_be_merged(name: str, spec: Spec, chosen: Callable[[str], bool]) -> bool:
    return spec.dtype.is_floating_point and chosen(name)


def _check_known(model: Weights, reference: Weights, chosen: Callable[[str], bool]) -> None:
    """What the model has of all that may be merged, the reference has too, in the same shape and dtype."""
    for name, spec in model.specs.items():
        expected = reference.specs.get(name)
        if not _may_be_merged(name, expected or spec, chosen):
            continue
        if expected is None:
            raise UserError(f"'{model.name}' has a tensor '{name}' ({spec}), which '{reference.name}' has not.")
        if spec != expected:
            raise UserError(f"The tensor '{name}' of '{model.name}' is {spec}; {expected} is expected, as in '{reference.name}'.")


def told_equal(pool: Pool) -> list[str]:
    """A sentence for each model that equals the base, or an earlier model, to the bit in all that is merged.

    Small tensors are compared first, and two models only until they differ, which costs next to nothing for models that were tuned.
    """
    ordered = smallest_first(pool.reference, pool.merged)
    sentences = []
    for model in pool.models:
        if pool.base is not None and equal(model, pool.base, ordered):
            sentences.append(f"'{model.name}' equals the base '{pool.base.name}' in every merged tensor: its task vector is 0.")
    for one, other in combinations(pool.models, 2):
        if equal(one, other, ordered):
            sentences.append(f"'{one.name}' and '{other.name}' are equal in every merged tensor.")
    return sentences


def smallest_first(weights: Weights, names: Iterable[str]) -> list[str]:
    """The names in the order of the tensors' sizes."""
    return sorted(names, key=lambda name: weights.specs[name].nbytes)


def equal(one: Weights, other: Weights, names: Sequence[str]) -> bool:
    """Whether two models have the same tensors of these names, to the bit; they are read until one differs."""
    return all(torch.equal(one.read(name), other.read(name)) for name in names)


def part_of(tensor: Tensor, part: slice | None) -> Tensor:
    """The tensor, or those elements of it, flattened."""
    return tensor if part is None else tensor.reshape(-1)[part]
