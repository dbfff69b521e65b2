"""Logits of some images as a function of a method's hyper-parameters: what is searched, and how it is computed once they are known.

All cache methods have logits that are affine in alpha, and those of Tip-X in gamma too:

    logits = (base + gamma * shift) + alpha * slope(beta, gamma)        each [n, C], in float32, in this order

Tensors lie class by class in memory (they are transposed views), so that what is asked of the classes of each image goes through
memory in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.data import Features

TILE_BYTES = {"cpu": 2**22, "cuda": 2**29}  # of similarities of some images to all keys: on a CPU, what its caches hold


class Point(NamedTuple):
    """Hyper-parameters; a method without gamma has 0."""

    alpha: float
    beta: float
    gamma: float = 0.0


@dataclass(frozen=True, eq=False)
class Affine:
    """Logits of n images: ``base`` and ``shift`` (None: there is none) [n, C], ``slope(beta, gamma)`` [n, C]."""

    base: Tensor
    slope: Callable[[float, float], Tensor]
    shift: Tensor | None = None

    def based(self, gamma: float) -> Tensor:
        """What alpha * slope is added to [n, C]."""
        return self.base if self.shift is None else self.base + gamma * self.shift

    def at(self, point: Point) -> Tensor:
        """The logits [n, C]."""
        return self.based(point.gamma) + point.alpha * self.slope(point.beta, point.gamma)


Rows = Callable[[slice], Affine]  # the logits of some of the images
AffineModel = Callable[[Features], Rows]  # a method, made; it sees all images at once only where it is transductive as released


def image_by_image(of: Callable[[Features], Affine]) -> AffineModel:
    """A model for which the other images do not matter."""
    return lambda images: lambda rows: of(images[rows])


def tiles(count: int, keys: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``count`` images whose similarities to ``keys`` keys are bounded in memory."""
    rows = max(1, TILE_BYTES.get(device.type, TILE_BYTES["cuda"]) // (4 * max(keys, 1)))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def logits_of(model: AffineModel, images: Features, keys: int, point: Point) -> Tensor:
    """Logits [N, C] at a point, tile by tile."""
    of = model(images)
    return torch.cat([of(rows).at(point) for rows in tiles(len(images), keys, images.labels.device)])


def count_correct(model: AffineModel, images: Features, keys: int, point: Point) -> int:
    """How many images are classified correctly at a point: one plain argmax."""
    of, labels = model(images), images.labels
    return sum(int((of(rows).at(point).argmax(dim=1) == labels[rows]).sum()) for rows in tiles(len(images), keys, labels.device))
