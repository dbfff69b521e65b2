"""The k-th smallest magnitude of a whole task vector, exactly, without ever holding the vector or sorting it.

The bits of a non-negative float32, read as an integer, are ordered as the number is. So the k-th smallest is found by radix: one
pass counts the upper 16 bits of all magnitudes, a second the lower 16 bits of those whose upper ones are the k-th's. That takes
96 K counters per task where a sort takes a copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from merging.method import Vectors
from merging.weights import Pool

SIGN_OFF = 0x7FFFFFFF
HIGH, LOW = 1 << 15, 1 << 16  # values of the upper 16 bits, whose sign bit is 0, and of the lower 16


def parts_of(pool: Pool, names: Sequence[str], vectors: Vectors) -> Iterator[Tensor]:
    """The task vectors of the named tensors, part by part: [K, n]."""
    return (vectors(name, part) for name in names for part in pool.parts(name))


def kept_from(pool: Pool, names: Sequence[str], vectors: Vectors, density: float) -> Tensor:
    """The magnitude from which each task vector is kept, [K] float32: the k-th smallest, k = d - floor(d * density), of its d entries.

    Entries with |τ| >= the k-th smallest are kept: the k-th itself is, so floor(d * density) + 1 survive when all differ, one
    more than the density says, as in the released code; 0 for k = 0, where all are kept. The same to the bit as sorting. Source:
    Yadav et al., NeurIPS 2023, algorithm 1 (trim).
    """
    size = sum(prod(pool.reference.specs[name].shape) for name in names)
    rank = size - int(size * density)
    if rank == 0:
        return torch.zeros(len(pool.models))
    models = len(pool.models)
    upper = torch.zeros(models, HIGH, dtype=torch.int64)
    for part in parts_of(pool, names, vectors):
        for model, bits in enumerate(map(_magnitude_bits, part)):
            upper[model] += torch.bincount(bits >> 16, minlength=HIGH)
    high, before = _bin_of(upper, torch.full((models,), rank))
    lower = torch.zeros(models, LOW, dtype=torch.int64)
    for part in parts_of(pool, names, vectors):
        for model, bits in enumerate(map(_magnitude_bits, part)):
            lower[model] += torch.bincount(bits[bits >> 16 == int(high[model])] & (LOW - 1), minlength=LOW)
    low, _ = _bin_of(lower, rank - before)
    return (high * LOW + low).int().view(torch.float32)


def _magnitude_bits(vector: Tensor) -> Tensor:
    """The bits of |τ| as int32, ordered as the magnitudes are."""
    return vector.view(torch.int32) & SIGN_OFF


def _bin_of(counts: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of counts [K, bins] the bin that holds its rank-th entry (from 1), and how many entries come before that bin."""
    cumulative = counts.cumsum(1)
    found = torch.searchsorted(cumulative, rank[:, None])
    before = cumulative.gather(1, found) - counts.gather(1, found)
    return found[:, 0], before[:, 0]
