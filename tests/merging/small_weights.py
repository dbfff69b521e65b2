"""Small random models that share a base, as dictionaries of tensors and as pools, for tests of merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from merging.options import MergeOptions
from merging.table import METHODS
from merging.weights import Pool, TensorWeights

Tensors = dict[str, Tensor]

# A convolution, wide, tall and square matrices, vectors and a scalar, as encoders have them.
SHAPES = {
    "conv": (6, 3, 2, 2),
    "class": (8,),
    "position": (9, 8),
    "out": (8, 8),
    "fc1": (32, 8),
    "fc2": (8, 32),
    "bias": (32,),
    "scale": (),
}


def draw(count: int, seed: int = 0, dtype: torch.dtype = torch.float32, shared: float = 0.0) -> tuple[Tensors, list[Tensors]]:
    """A base and ``count`` models around it, whose task vectors have the part ``shared`` in common."""
    generator = torch.Generator().manual_seed(seed)

    def random() -> Tensors:
        return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}

    base, common = random(), random()
    models = [
        {name: base[name] + 0.05 * (own[name] + shared * common[name]) for name in SHAPES} for own in (random() for _ in range(count))
    ]
    return {name: tensor.to(dtype) for name, tensor in base.items()}, [{n: t.to(dtype) for n, t in model.items()} for model in models]


def pool(base: Mapping[str, Tensor] | None, models: Sequence[Mapping[str, Tensor]]) -> Pool:
    """The pool of these, with task0, task1 ... as names."""
    named = tuple(TensorWeights(f"task{index}", tensors) for index, tensors in enumerate(models))
    merged = tuple(name for name, tensor in models[0].items() if tensor.is_floating_point())
    return Pool(None if base is None else TensorWeights("base", base), named, merged)


def merged(method: str, of: Pool, **options: Any) -> Tensors:
    """All merged tensors by a method of the table."""
    merge = METHODS[method].start(of, MergeOptions(**options))
    return {name: merge(name) for name in of.merged}


def merged_for(method: str, of: Pool, model: int, **options: Any) -> Tensors:
    """All tensors of the encoder for one task, by a method that gives one per task."""
    per_model = METHODS[method].per_model
    assert per_model is not None
    merge = per_model(of, MergeOptions(**options))
    return {name: merge(model, name) for name in of.merged}


def assert_equal(found: Tensors, expected: Mapping[str, Tensor], tolerance: float = 1e-6) -> None:
    """Equal names, shapes and values, to the relative and absolute ``tolerance``; 0 means to the bit."""
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=tolerance, atol=tolerance)
