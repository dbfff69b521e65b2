"""DARE: drop entries of the task vectors at random and rescale the rest, then merge in one of the plain ways."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from merging.method import MergeTensor, Vectors, of_task_vector, total
from merging.methods.ties import ties_of
from merging.options import MergeOptions
from merging.weights import Pool

PAPER = "Yu et al., ICML 2024 (arXiv:2311.03099)"
DRAWS = 8  # float32 numbers that one step of Philox's counter gives


def dropped_vectors(pool: Pool, options: MergeOptions) -> Vectors:
    """The task vectors, each entry kept with probability 1 - p and then divided by 1 - p (unless ``rescale`` is off), or else 0.

    p is ``drop_rate``. Source: Yu et al., ICML 2024 (Drop And REscale).
    """
    keep = 1 - options.drop_rate
    factor = 1 / keep if options.rescale else 1.0

    def vectors(name: str, part: slice) -> Tensor:
        own = pool.task_vectors(name, part)
        for model, vector in zip(pool.models, own, strict=True):
            vector.mul_(uniform(options.seed, model.name, name, part) < keep).mul_(factor)
        return own

    return vectors


def uniform(seed: int, model: str, tensor: str, part: slice) -> Tensor:
    """Numbers from [0, 1) for the elements ``part`` of a tensor of a model, [n]: a function of these four and nothing else.

    The generator counts, so that any part can be drawn alone and neither order nor the sizes of parts matter.
    """
    key = hashlib.sha256("\0".join((str(seed), model, tensor)).encode()).digest()[:16]
    block, skipped = divmod(part.start, DRAWS)
    philox = np.random.Philox(key=np.frombuffer(key, dtype="<u8"), counter=block)
    return torch.from_numpy(np.random.Generator(philox).random(skipped + part.stop - part.start, dtype=np.float32)[skipped:])


def dare_task_arithmetic(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = Σ_k of the dropped τ_k."""
    vectors = dropped_vectors(pool, options)
    return lambda name: pool.by_parts(name, lambda part: total(vectors(name, part)))


def dare_average(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = 1/K Σ_k of the dropped τ_k."""
    summed = dare_task_arithmetic(pool, options)
    return lambda name: summed(name).div_(len(pool.models))


def dare_ties(pool: Pool, options: MergeOptions) -> MergeTensor:
    """TIES of the dropped τ_k; the zeros count as entries when they are trimmed."""
    return ties_of(pool, dropped_vectors(pool, options), options)


METHODS = (
    of_task_vector(
        "dare_average",
        "the mean of randomly thinned task vectors",
        PAPER,
        task_vector=dare_average,
        default_scaling=1.0,
        reads=("drop_rate", "rescale", "seed"),
    ),
    of_task_vector(
        "dare_task_arithmetic",
        "the sum of randomly thinned task vectors",
        PAPER,
        task_vector=dare_task_arithmetic,
        default_scaling=0.3,
        reads=("drop_rate", "rescale", "seed"),
    ),
    of_task_vector(
        "dare_ties",
        "TIES of randomly thinned task vectors",
        PAPER,
        task_vector=dare_ties,
        default_scaling=0.5,
        reads=("drop_rate", "rescale", "seed", "density", "merge_func", "scope"),
    ),
)
