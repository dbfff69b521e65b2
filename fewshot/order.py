"""Which images make which training step of adapters: functions of seed, epoch and step alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

Indices = NDArray[np.int64]


class Order(ABC):
    """The batches of one process, epoch after epoch; a batch sampler for a loader that lives through all epochs.

    Of every step each of ``world`` processes takes every ``world``-th image, so that a step sees the same images whatever their
    number. ``least`` is the least number of images in a step: each process must get one.
    """

    def __init__(self, least: int, steps: int, rank: int, world: int, seed: int) -> None:
        if least < world:
            raise UserError(f"A step of {least} images cannot be shared by {world} processes; use a larger --batch-size, or fewer of them.")
        self.steps, self.rank, self.world, self.seed = steps, rank, world, seed
        self.set(0)

    @abstractmethod
    def batches(self, epoch: int) -> Sequence[Indices]:
        """The images of every step of an epoch, of all processes."""

    def set(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch to iterate over, and the step of it to begin with."""
        self.epoch, self.first = epoch, first
        self.chosen = self.batches(epoch)

    def images(self, step: int) -> int:
        """Images of all processes in that step of the epoch."""
        return len(self.chosen[step])

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.chosen[self.first :]:
            yield batch[self.rank :: self.world].tolist()


class WholeBatches(Order):
    """Epochs of ``n`` images in a random order, cut into steps of ``batch_size``; what remains is left out, as published.

    Fewer images than a batch make one step of all of them.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        self.n, self.size = n, min(n, batch_size)
        super().__init__(self.size, n // self.size, rank, world, seed)

    def batches(self, epoch: int) -> Sequence[Indices]:
        """See :class:`Order`."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
        return [order[start : start + self.size] for start in range(0, self.n - self.size + 1, self.size)]


class ClassBatches(Order):
    """Steps of some classes with ``per_class`` images of each, no image twice in a step, so that there are pairs of both kinds.

    For each step ``batch_size // per_class`` classes are drawn from those with two images or more, and their images anew (Hermans
    et al., In Defense of the Triplet Loss, 2017, section 2). Where there are fewer classes each gives more images, and a small class
    gives all it has. An epoch has as many steps as one of :class:`WholeBatches`. Raises :class:`UserError` when there are no
    two such classes, or no room for them.
    """

    def __init__(
        self, labels: NDArray[np.int64], batch_size: int, per_class: int = 4, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        classes = np.flatnonzero(np.bincount(labels) >= 2)
        if len(classes) < 2:
            raise UserError("Pairs of the same class and of different classes need two classes with two images each; choose other data.")
        if not 2 <= per_class <= batch_size // 2:
            raise UserError(f"--images-per-class {per_class} does not lie between 2 and half of --batch-size {batch_size}.")
        self.members = [np.flatnonzero(labels == number) for number in classes]
        self.classes = min(len(classes), batch_size // per_class)
        self.per_class = batch_size // self.classes
        super().__init__(2 * self.classes, max(1, len(labels) // batch_size), rank, world, seed)

    def batches(self, epoch: int) -> Sequence[Indices]:
        """See :class:`Order`."""
        return [self._drawn(np.random.default_rng((self.seed, epoch, step))) for step in range(self.steps)]

    def _drawn(self, generator: np.random.Generator) -> Indices:
        chosen = generator.choice(len(self.members), self.classes, replace=False)
        members = [self.members[number] for number in chosen]
        return np.concatenate([generator.choice(each, min(self.per_class, len(each)), replace=False) for each in members])
