"""The encoders that are evaluated: models as they are, a merge, all merges of a sweep; in no more memory than was asked for.

All are under the names of ``encoder.model``. ``resident`` models at most are kept on the device; any other is read from its file, or
merged, again for every few hundred images (:data:`merging.evaluate.IMAGES_AT_ONCE`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merging.evaluate import as_encoder_names, held, scaled
from merging.inputs import Inputs
from merging.method import MergeTensor, Method, base_of, scaling_of
from merging.options import MergeOptions
from merging.sweep import Point
from merging.weights import Pool, View, Weights, part_of
from models.encoder import Encoder


@dataclass(frozen=True)
class Place:
    """Which encoder's tensors ``names`` candidates take the place of, where they are kept, and how many of them."""

    encoder: Encoder
    names: Sequence[str]
    device: torch.device
    resident: int

    def put(self, models: Sequence[Weights]) -> list[Weights]:
        """The models under the encoder's names, the first of them kept. UserError for one that is not of the encoder's kind."""
        renamed = [as_encoder_names(self.encoder, model) for model in models]
        return [self.keep(model) if number < self.resident else model for number, model in enumerate(renamed)]

    def keep(self, model: Weights) -> Weights:
        """The model with its tensors on the device."""
        return held(model, self.names, self.device)


def merged(name: str, pool: Pool, merge: MergeTensor) -> View:
    """A merge as weights that are made when they are read: what is not merged is the reference's, and so are the dtypes."""
    chosen, reference = frozenset(pool.merged), pool.reference

    def read(tensor: str, part: slice | None) -> Tensor:
        if tensor not in chosen:
            return reference.read(tensor, part)
        return part_of(merge(tensor).to(reference.specs[tensor].dtype), part)

    return View(name, reference.specs, read)


def task_vector(inputs: Inputs, method: Method, options: MergeOptions) -> View:
    """The merged task vector that ``scaling`` multiplies, float32; 0 for all that is not merged."""
    assert method.task_vector is not None
    chosen, specs, tau = frozenset(inputs.pool.merged), inputs.reference.specs, method.task_vector(inputs.pool, options)

    def read(tensor: str, part: slice | None) -> Tensor:
        return part_of(tau(tensor) if tensor in chosen else torch.zeros(specs[tensor].shape), part)

    return View(method.name, specs, read)


def of_points(inputs: Inputs, method: Method, points: Sequence[Point], place: Place) -> list[Weights]:
    """The merges of a sweep.

    Where scaling multiplies a task vector, points that differ in nothing else share it: theta_0 + scaling * tau is made when it is read,
    and any number of scalings takes the memory of two models.
    """
    if method.task_vector is None:
        return place.put([merged(point.label, inputs.pool, method.start(inputs.pool, point.options)) for point in points])
    base: Weights = as_encoder_names(place.encoder, base_of(inputs.pool, method.name))
    unscaled = list(dict.fromkeys(replace(point.options, scaling=None) for point in points))
    taus = dict(zip(unscaled, place.put([task_vector(inputs, method, options) for options in unscaled]), strict=True))
    assert method.default_scaling is not None
    base, scalings = place.keep(base), [scaling_of(point.options, method.default_scaling) for point in points]
    return [
        scaled(point.label, base, taus[replace(point.options, scaling=None)], scaling)
        for point, scaling in zip(points, scalings, strict=True)
    ]
