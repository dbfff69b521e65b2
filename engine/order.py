"""Which images make which training step: a function of seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class EpochOrder:
    """The batches of this process for one epoch after the other; a batch sampler for a loader that lives through all of them.

    An epoch is a permutation of ``n`` samples drawn from (seed, epoch), cut into optimizer steps of
    ``batch_size * accumulate`` samples, each cut into ``accumulate`` micro-batches. Of every micro-batch each of ``world``
    processes takes every ``world``-th sample, so that a step sees the same samples whatever the number of processes. A
    process that would get none takes one sample of the micro-batch, with weight 0.

    Iterating yields the sample numbers of the epoch chosen by :meth:`set`, from its step ``first`` on.
    """

    n: int
    batch_size: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    seed: int = 0
    epoch: int = field(default=0, init=False)
    first: int = field(default=0, init=False)

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.n // (self.batch_size * self.accumulate))

    def set(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch to iterate over, and the step of it to begin with."""
        self.epoch, self.first = epoch, first

    def step_size(self, step: int) -> int:
        """Samples of all processes in optimizer step ``step``."""
        size = self.batch_size * self.accumulate
        return min(size, self.n - step * size)

    def micro_batches(self, step: int) -> int:
        """Micro-batches in optimizer step ``step``."""
        return -(-self.step_size(step) // self.batch_size)

    def share(self, micro_batch_size: int) -> int:
        """Samples of a micro-batch of that size which this process takes with weight 1."""
        return len(range(self.rank, micro_batch_size, self.world))

    def __len__(self) -> int:
        return sum(self.micro_batches(step) for step in range(self.first, self.steps))

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        for start in range(self.first * self.batch_size * self.accumulate, self.n, self.batch_size):
            micro = order[start : start + self.batch_size]
            mine = micro[self.rank :: self.world]
            yield (mine if len(mine) else micro[:1]).tolist()
