"""Symmetric positive matrices, with regard to their rank."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from scipy import linalg
from threadpoolctl import ThreadpoolController

from metrics.statistics import Float64

EPSILON = float(np.finfo(np.float64).eps)
WELL_CONDITIONED = 1e-7  # reciprocal condition above which a Cholesky solve keeps eight digits or more


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries, so once


def one_thread() -> AbstractContextManager[Any]:
    """Within the block, BLAS and LAPACK use one thread.

    For loops over many small matrices: sharing out a matrix of some hundred rows costs more than it saves, on a busy machine
    many times more.
    """
    limit: AbstractContextManager[Any] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


def positive_eigen(matrix: Float64, count: int) -> tuple[Float64, Float64]:
    """Eigenvalues [r] that are not rounding errors of zero, greatest first, and their eigenvectors [D, r].

    The matrix is a sum over ``count`` images; what lies below max(count, D) epsilons of the greatest is taken for zero.
    """
    values, vectors = linalg.eigh(matrix, check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > max(count, len(matrix)) * EPSILON * max(values[0], 0.0)).sum()) if len(values) else 0
    return values[:rank], vectors[:, :rank]


def trace_of_solution(matrix: Float64, rows: Float64, count: int) -> float:
    """trace(pinv(M) R^T R) for M [D, D] and rows R [C, D] in the range of M; ``count`` as in :func:`positive_eigen`.

    By Cholesky where M is well conditioned, else by its eigenvectors. Features are first brought to one scale, which changes
    nothing but makes the rank a question of their correlation, not of their units.

    >>> trace_of_solution(np.diag([4.0, 0.0]), np.array([[2.0, 0.0]]), 10)
    1.0
    """
    scale = np.sqrt(np.diag(matrix))
    used = scale > 0
    if not used.any():
        return 0.0
    matrix = matrix[np.ix_(used, used)] / np.outer(scale[used], scale[used])
    rows = rows[:, used] / scale[used]
    factor = well_conditioned_cholesky(matrix)
    if factor is not None:
        return float((linalg.solve_triangular(factor, rows.T, lower=True, check_finite=False) ** 2).sum())
    values, vectors = positive_eigen(matrix, count)
    return float((((rows @ vectors) ** 2).sum(axis=0) / values).sum())


def well_conditioned_cholesky(matrix: Float64) -> Float64 | None:
    """The lower Cholesky factor, or None where the matrix is too near to a singular one."""
    try:
        factor: Float64 = linalg.cholesky(matrix, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    reciprocal, _ = linalg.lapack.dpocon(factor, np.abs(matrix).sum(axis=0).max(), uplo="L")
    return factor if reciprocal > WELL_CONDITIONED else None


def half_log_determinant_of_one_plus(matrix: Float64) -> float:
    """log det(I + M) / 2, for M positive semidefinite.

    >>> round(half_log_determinant_of_one_plus(np.diag([3.0, 0.0])), 6)
    0.693147
    """
    shifted = matrix.copy()
    shifted.flat[:: len(matrix) + 1] += 1
    return float(np.log(np.diag(linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False))).sum())


def shrunk(covariance: Float64, shrinkage: float) -> Float64:
    """(1 - a) S + a (trace(S) / D) I, for a the shrinkage."""
    mixed = (1 - shrinkage) * covariance
    mixed.flat[:: len(covariance) + 1] += shrinkage * np.trace(covariance) / len(covariance)
    return mixed
