"""Gaussian Bhattacharyya coefficient: how much the classes overlap, each taken for a Gaussian.

Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability" (CVPR 2022), equations 4 to 6.

A class whose images are equal in some feature is a point there, the limit of ever narrower Gaussians: two such classes
overlap fully in that feature where their values are equal, and not at all otherwise; nor does a point overlap with a Gaussian.
So a class with one image overlaps with none. The released code puts every variance up to 1e-4 instead, in squared units of the
features: more than the variance of most features of unit vectors (about 1 / D).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.metric import DUPLICATION, ROTATION, SEPARATE_ROTATION, TRANSFERABILITY, WITHOUT_TEXT, Metric, from_squares
from metrics.sample import Sample
from metrics.scatter import EPSILON, Squares, require_classes
from metrics.statistics import Float64

RELEASED_FLOOR = 1e-4  # least variance of a feature in the released code


def gbc_spherical(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """-sum_{c != c'} exp(-B(c, c')) over ordered pairs of classes, Gaussians with one variance for all D features.

    B = |m_c - m_c'|^2 / (8 s) + (D / 2) log(s / sqrt(s_c s_c')), where s_c is the mean over features of the variance within
    class c and s = (s_c + s_c') / 2. In [-C (C - 1), 0]; high means that classes overlap little. Images [N, D] of any length,
    labels [N]; classes without images don't count. Raises MetricError for fewer than two classes with images.

    >>> round(gbc_spherical([[0.0, 1.0], [0.2, 0.6], [0.3, 0.1], [0.6, 0.0]], [0, 0, 1, 1]), 6)
    -0.019596
    """
    return gbc_spherical_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)).squares)


def gbc_diagonal(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """As :func:`gbc_spherical`, with a variance of its own for each feature in each class.

    B = sum_d (m_cd - m_c'd)^2 / (8 s_d) + log(s_d / sqrt(s_cd s_c'd)) / 2, with s_d = (s_cd + s_c'd) / 2. Depends on the axes.

    >>> round(gbc_diagonal([[0.0, 1.0], [0.2, 0.6], [0.3, 0.1], [0.6, 0.0]], [0, 0, 1, 1]), 6)
    -0.018781
    """
    return gbc_diagonal_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)).squares)


class Gaussians(NamedTuple):
    """Of each class with images: ``means`` about the mean of all, ``variances``, which are ``points``; all [K, D].

    ``rounding`` [D] is how far two means of equal values may lie apart.
    """

    means: Float64
    variances: Float64
    points: NDArray[np.bool_]
    rounding: Float64


def gaussians(of: Squares, measure: str) -> Gaussians:
    """The Gaussians; a variance no greater than the rounding of its mean makes a point."""
    require_classes(of, measure)
    compact = of.compact
    counts = compact.class_counts[:, None]
    variances = compact.class_squares / counts
    points = variances <= (counts * EPSILON * compact.class_means) ** 2
    rounding = of.count * EPSILON * np.abs(compact.class_means).max(axis=0)
    return Gaussians(compact.class_means - of.mean, np.where(points, 0.0, variances), points, rounding)


def gbc_spherical_of(of: Squares) -> float:
    """:func:`gbc_spherical` from squares."""
    means, variances, points, rounding = gaussians(of, "gbc_spherical")
    all_points = np.asarray(points.all(axis=1))[:, None]
    overlap = spherical_overlap(means, np.where(all_points[:, 0], 1.0, variances.mean(axis=1)), means.shape[1])
    return 0.0 - total(overlap, apart(means, all_points, rounding))


def gbc_spherical_as_released(of: Squares) -> float:
    """The log-determinant counts one feature instead of D, and variances are at least 1e-4."""
    means, variances, *_ = gaussians(of, "gbc_spherical")
    return 0.0 - total(spherical_overlap(means, np.maximum(variances, RELEASED_FLOOR).mean(axis=1), 1))


def gbc_diagonal_of(of: Squares) -> float:
    """:func:`gbc_diagonal` from squares."""
    means, variances, points, rounding = gaussians(of, "gbc_diagonal")
    overlap = diagonal_overlap(np.where(points, 0.0, means), np.where(points, 1.0, variances))
    return 0.0 - total(overlap, apart(means, points, rounding))


def gbc_diagonal_as_released(of: Squares) -> float:
    """Variances are at least 1e-4."""
    means, variances, *_ = gaussians(of, "gbc_diagonal")
    return 0.0 - total(diagonal_overlap(means, np.maximum(variances, RELEASED_FLOOR)))


def spherical_overlap(means: Float64, variances: Float64, dimensions: int) -> Float64:
    """exp(-B) of all pairs [K, K], from the means' products; ``dimensions`` is how often the log-determinant counts."""
    lengths = np.einsum("kd,kd->k", means, means)
    squared = np.maximum(lengths[:, None] + lengths - 2 * (means @ means.T), 0)
    middle = (variances[:, None] + variances) / 2
    roots = np.log(variances) / 2
    return np.exp(-squared / (8 * middle) - dimensions / 2 * (np.log(middle) - roots[:, None] - roots))


def diagonal_overlap(means: Float64, variances: Float64) -> Float64:
    """exp(-B) of all pairs [K, K], row by row; B is symmetric, so only pairs beyond the diagonal are computed."""
    count = len(means)
    distances = np.zeros((count, count))
    logs = np.log(variances).sum(axis=1) / 2
    for one in range(count - 1):
        sums = variances[one + 1 :] + variances[one]
        squares = np.square(means[one + 1 :] - means[one])
        mahalanobis = np.divide(squares, sums, out=squares).sum(axis=1) / 4
        sums *= 0.5
        volumes = np.log(sums, out=sums).sum(axis=1) - logs[one + 1 :] - logs[one]
        distances[one, one + 1 :] = mahalanobis + volumes / 2
    return np.exp(-(distances + distances.T))


def apart(means: Float64, points: NDArray[np.bool_], rounding: Float64) -> NDArray[np.bool_] | None:
    """Pairs [K, K] without any overlap: one class is a point where the other is none, or they are different points."""
    if not points.any():
        return None
    rows = []
    for one in range(len(means)):
        equal = np.abs(means - means[one]) <= rounding
        rows.append(((points != points[one]) | (points[one] & ~equal)).any(axis=1))
    return np.array(rows)


def total(overlap: Float64, excluded: NDArray[np.bool_] | None = None) -> float:
    """The sum over ordered pairs of different classes, without those that are ``excluded``."""
    if excluded is not None:
        overlap = np.where(excluded, 0.0, overlap)
    return float(overlap.sum() - np.trace(overlap))


METRICS = (
    Metric(
        "gbc_spherical",
        "Gaussian Bhattacharyya coefficient: minus the overlap of classes, one variance per class",
        gbc_spherical,
        from_squares(gbc_spherical_of),
        higher_is="classes overlap less",
        family=TRANSFERABILITY,
        range=(-np.inf, 0.0),
        needs_text=False,
        min_images=2,
        min_classes=2,
        invariances=WITHOUT_TEXT | {DUPLICATION},
        as_released=from_squares(gbc_spherical_as_released),
        released_note="the log-determinant counts one feature instead of D; variances of features are at least 1e-4",
        cost="O(N D + C^2 D)",
    ),
    Metric(
        "gbc_diagonal",
        "Gaussian Bhattacharyya coefficient: minus the overlap of classes, one variance per class and feature",
        gbc_diagonal,
        from_squares(gbc_diagonal_of),
        higher_is="classes overlap less",
        family=TRANSFERABILITY,
        range=(-np.inf, 0.0),
        needs_text=False,
        min_images=2,
        min_classes=2,
        invariances=(WITHOUT_TEXT | {DUPLICATION}) - {ROTATION, SEPARATE_ROTATION},
        as_released=from_squares(gbc_diagonal_as_released),
        released_note="variances of features are at least 1e-4",
        cost="O(N D + C^2 D)",
    ),
)
