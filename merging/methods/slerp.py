"""SLERP: from one model to another along the great circle."""

from __future__ import annotations

import math

from torch import Tensor

from common.errors import UserError
from merging.method import MergeTensor, inner_products, of_weights
from merging.options import MergeOptions
from merging.weights import Pool

NEARLY_PARALLEL = 0.9995  # cosine from which the great circle is taken for a line, as in common implementations


def slerp(pool: Pool, options: MergeOptions) -> MergeTensor:
    """θ = sin((1-t) a)/sin(a) θ_1 + sin(t a)/sin(a) θ_2, a the angle between the two weights, tensor by tensor.

    Where the weights are nearly parallel or one is zero, θ = (1-t) θ_1 + t θ_2. The weights themselves are turned, not the task
    vectors, one tensor at a time, as merging tools do. Raises UserError unless there are two models. Source: Shoemake, SIGGRAPH 1985.
    """
    if len(pool.models) != 2:
        raise UserError(f"slerp goes from one model to another; give exactly two, not {len(pool.models)}.")

    def merge(name: str) -> Tensor:
        first, second = coefficients(_cosine(pool, name), options.t)
        return pool.by_parts(name, lambda part: _combined(pool.stack(name, part), first, second))

    return merge


def coefficients(cosine: float, t: float) -> tuple[float, float]:
    """The factors of θ_1 and θ_2."""
    if abs(cosine) > NEARLY_PARALLEL or math.isnan(cosine):
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _combined(stack: Tensor, first: float, second: float) -> Tensor:
    return stack[0].mul_(first).add_(stack[1], alpha=second)


def _cosine(pool: Pool, name: str) -> float:
    """Of the two models' tensors; NaN where one is zero."""
    products = inner_products(pool, name, pool.stack)
    return float(products[0, 1] / (products[0, 0] * products[1, 1]).sqrt())


METHOD = of_weights(
    "slerp",
    "two models, joined along the great circle between their weights",
    "Shoemake, SIGGRAPH 1985",
    merged=slerp,
    reads=("t",),
    symmetric=False,
)
