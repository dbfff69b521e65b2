"""Singular vectors of task vectors' matrices, by way of the smaller Gram matrix.

With A [m, n], m >= n, the eigenvectors of A^T A [n, n] are the right singular vectors V, and its eigenvalues the squares of the
singular values. Squaring halves the digits, so it is done in float64, which has more than twice those of the float32 that A comes in:
no slower than a decomposition of A in float32, faster where few vectors are wanted, and orthonormal to more digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import UserError
from merging.method import MergeTensor, by_element, total
from merging.options import MergeOptions
from merging.weights import Pool


class Triplets(NamedTuple):
    """A = U diag(s) V^T: u [m, r], s [r] descending and positive, v [n, r], float64, r at most the rank of A."""

    u: Tensor
    s: Tensor
    v: Tensor


def triplets(matrix: Tensor, most: int | None = None) -> Triplets:
    """The singular triplets of a matrix [m, n], or the ``most`` largest ones.

    Singular values below max(m, n) * eps of float32 times the largest are rounding: they are left out, with their vectors, which are
    arbitrary.
    """
    if matrix.shape[0] < matrix.shape[1]:
        v, s, u = triplets(matrix.T, most)
        return Triplets(u, s, v)
    tall = matrix.double()
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    s = squares.flip(0)[:most].clamp_(min=0).sqrt_()
    count = int((s > s[:1] * max(matrix.shape) * torch.finfo(torch.float32).eps).sum())
    s, v = s[:count], vectors.flip(1)[:, :count]
    return Triplets(tall @ v / s, s, v)


def polar(matrix: Tensor) -> Tensor:
    """U V^T of a matrix [m, n], float64: the nearest matrix with orthonormal columns (or rows), on the range of the matrix.

    By a decomposition of the matrix itself: side by side, the singular vectors of several tasks are nearly square and have singular
    values that are small but real, which squaring would lose. Those below max(m, n) * eps of float64 times the largest are rounding.
    """
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    count = int((s > s[:1] * max(matrix.shape) * torch.finfo(torch.float64).eps).sum())
    return u[:, :count] @ vt[:count]


def by_matrix(pool: Pool, options: MergeOptions, merge: Callable[[str], Tensor]) -> MergeTensor:
    """``merge`` for the matrices, the mean task vector for all other tensors (biases, norms, convolutions).

    Raises UserError for a device that cannot work in float64, or is not there.
    """
    try:
        torch.zeros(1, dtype=torch.float64, device=options.device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"--device {options.device} cannot be used ({str(error).splitlines()[0]}); --device cpu can.") from error
    mean = by_element(pool, lambda vectors: total(vectors).div_(len(vectors)))
    return lambda name: merge(name) if len(pool.reference.specs[name].shape) == 2 else mean(name)
