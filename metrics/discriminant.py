"""Linear discriminant analysis from second moments: Gaussians of one covariance, whose probabilities are exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from metrics.sample import softmax
from metrics.scatter import Scatter
from metrics.statistics import Float64, MetricError


class Discriminant(NamedTuple):
    """Scores of class k are x . weights_k + offset_k; weights [K, D], offsets [K]."""

    weights: Float64
    offsets: Float64

    def probabilities(self, rows: Float64) -> Float64:
        """p(k | x) of rows [n, D], as [n, K]."""
        scores = rows @ self.weights.T
        scores += self.offsets
        return softmax(scores)


def discriminant(of: Scatter, covariance: Float64) -> Discriminant:
    """weights_k = S^-1 m_k, offset_k = -m_k . S^-1 m_k / 2 + log(n_k / N); all classes of ``of`` must have images.

    A Cholesky solve: the generalised eigenvectors V that are commonly used satisfy V V^T = S^-1, so the numbers are equal.
    MetricError when S is singular.
    """
    try:
        weights = linalg.solve(covariance, of.class_means.T, assume_a="pos", check_finite=False).T
    except linalg.LinAlgError as error:
        raise MetricError("The covariance within classes is singular.") from error
    offsets = np.log(of.class_counts / of.count) - np.einsum("kd,kd->k", of.class_means, weights) / 2
    return Discriminant(weights, offsets)


def require_spread(of: Scatter, measure: str) -> None:
    """MetricError when the images of every class are equal (to rounding)."""
    squares = np.diag(of.within)
    rounding = (of.count * np.finfo(np.float64).eps) ** 2 * of.count * (of.class_means**2).max(axis=0)
    if (squares <= rounding).all():
        raise MetricError(f"{measure} is undefined when no class has two different images.")
