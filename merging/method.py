"""What the METHODS table says of a merging method, and the one place where scaling is applied.

Notation, here and in ``merging/methods/``: θ_0 is the base, θ_k the k-th of K fine-tuned models, τ_k = θ_k - θ_0 its task vector.
A method works on one tensor at a time, or on a part of one, and keeps none: memory grows with the largest tensor and not with the
models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.errors import UserError
from merging.options import MergeOptions
from merging.weights import Pool, Weights

if TYPE_CHECKING:
    from merging.data import MergeData

MergeTensor = Callable[[str], Tensor]  # the merged tensor of that name, or its merged task vector; float32
ModelTensor = Callable[[int, str], Tensor]  # the same for the k-th task alone
Start = Callable[[Pool, MergeOptions], MergeTensor]
StartPerModel = Callable[[Pool, MergeOptions], ModelTensor]
StartWithData = Callable[[Pool, MergeOptions, "MergeData"], MergeTensor]
Vectors = Callable[[str, slice], Tensor]  # a part of a tensor of all models, or of their task vectors: [K, n], float32


@dataclass(frozen=True)
class Method:
    """A merging method: what it is, what it reads, and how it starts.

    ``start`` makes its first passes over the tensors, if it needs any, and returns the function that merges the tensor of a name (to
    float32; scaling applied). ``reads`` names the fields of :class:`MergeOptions` that matter to it. ``task_vector`` gives what
    ``scaling`` multiplies, where there is one: a sweep over scalings computes it once. ``per_model`` is there where a method gives
    one encoder per task, for which ``per_model_scaling`` is the default. ``symmetric`` tells that the order of the models does not
    matter. ``data`` says what images the method looks at, in ``start_with_data``; ``transductive``, that they are those it is tested on.
    ``routed`` methods give an encoder of another form, which :mod:`merging.wemoe.command` writes.
    """

    name: str
    description: str
    paper: str
    reads: tuple[str, ...]
    default_scaling: float | None
    start: Start
    per_model: StartPerModel | None = None
    per_model_scaling: float = 1.0
    task_vector: Start | None = None
    data: str = "none"
    symmetric: bool = True
    start_with_data: StartWithData | None = None
    transductive: bool = False
    routed: bool = False


def of_task_vector(
    name: str,
    description: str,
    paper: str,
    *,
    task_vector: Start,
    default_scaling: float,
    reads: tuple[str, ...] = (),
    per_model: StartPerModel | None = None,
    per_model_scaling: float = 1.0,
    symmetric: bool = True,
) -> Method:
    """The method θ = θ_0 + scaling * τ, from a function that gives τ; ``per_model`` gives the τ of each task."""
    return Method(
        name,
        description,
        paper,
        reads=("scaling", *reads),
        default_scaling=default_scaling,
        start=_scaled(name, task_vector, default_scaling),
        per_model=None if per_model is None else _scaled(name, per_model, per_model_scaling),
        per_model_scaling=per_model_scaling,
        task_vector=task_vector,
        symmetric=symmetric,
    )


def _scaled(name: str, start: Callable[[Pool, MergeOptions], Callable[..., Tensor]], default: float) -> Any:
    """A start that gives θ_0 + scaling * τ from one that gives τ, by the name of a tensor or by a model's number and a name."""

    def scaled(pool: Pool, options: MergeOptions) -> Callable[..., Tensor]:
        base_of(pool, name)
        scaling, tau = scaling_of(options, default), start(pool, options)
        return lambda *which: added(pool, which[-1], tau(*which), scaling)

    return scaled


def added(pool: Pool, name: str, tau: Tensor, scaling: float) -> Tensor:
    """θ_0 + scaling * τ of a tensor [*shape], float32, part by part and in the place of τ: no other tensor of its size is in memory."""
    base, flat = base_of(pool, "A task vector"), tau.reshape(-1)
    for part in pool.parts(name):
        flat[part] = torch.add(base.read(name, part).float(), flat[part], alpha=scaling)
    return flat.view(tau.shape)


def of_weights(name: str, description: str, paper: str, *, merged: Start, reads: tuple[str, ...] = (), symmetric: bool = True) -> Method:
    """A method that merges the weights themselves and needs no base, unless a ``scaling`` s other than 1 asks for one.

    Then θ = θ_0 + s * (merged - θ_0).
    """

    def start(pool: Pool, options: MergeOptions) -> MergeTensor:
        scaling, merge = scaling_of(options, 1.0), merged(pool, options)
        if scaling == 1:
            return merge
        base = base_of(pool, f"{name} with --scaling")
        return lambda tensor: torch.lerp(base.read(tensor).float(), merge(tensor), scaling)

    return Method(name, description, paper, reads=("scaling", *reads), default_scaling=1.0, start=start, symmetric=symmetric)


def scaling_of(options: MergeOptions, default: float) -> float:
    """The scaling that was asked for, or else the method's default."""
    return default if options.scaling is None else options.scaling


def base_of(pool: Pool, what: str) -> Weights:
    """The base of the pool; UserError where there is none, saying ``what`` needs it."""
    if pool.base is None:
        raise UserError(f"{what} needs the model that the others were tuned from; name it with --base.")
    return pool.base


def read(weights: Weights, name: str) -> Tensor:
    """A float32 copy of a tensor, which the caller may overwrite."""
    return weights.read(name).to(torch.float32, copy=True)


def each_task_vector(pool: Pool, name: str, part: slice | None = None, device: str = "cpu") -> Iterator[Tensor]:
    """The task vectors τ_k of a tensor [*shape], or of a part of it [n], float32, one after the other: two in memory instead of K."""
    base = base_of(pool, "A task vector").read(name, part).float()
    for model in pool.models:
        yield model.read(name, part).float().sub(base).to(device)


def by_element(pool: Pool, merge: Callable[[Tensor], Tensor]) -> MergeTensor:
    """The merge of task vectors element by element, where ``merge`` maps those of some elements, [K, n], to [n]."""
    return lambda name: pool.by_parts(name, lambda part: merge(pool.task_vectors(name, part)))


def total(vectors: Iterable[Tensor]) -> Tensor:
    """The sum of the K task vectors, added in their order: the same to the bit however a tensor is split into parts."""
    remaining = iter(vectors)
    summed = next(remaining).clone()
    for vector in remaining:
        summed += vector
    return summed


def inner_products(pool: Pool, name: str, vectors: Vectors) -> Tensor:
    """The inner products of a tensor of the K models, or of their task vectors: [K, K] float64."""
    products = torch.zeros(len(pool.models), len(pool.models), dtype=torch.float64)
    for part in pool.parts(name):
        own = vectors(name, part).double()
        products += own @ own.T
    return products
