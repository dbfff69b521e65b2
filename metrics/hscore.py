"""H-score: how much of the features' variance, direction by direction, lies between the classes.

Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning" (ICIP 2019); with shrinkage:
Ibrahim, Ponomareva, Mazumder, "Newer is Not Always Better: Rethinking Transferability Metrics, Their Peculiarities, Stability
and Performance" (ECML PKDD 2022).

The released code computes the pseudo-inverse in float32 with a tolerance of 1e-15, so that directions without variance
contribute rounding noise (values beyond the bound C - 1, or negative). That noise can't be reproduced and is not offered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.linear_algebra import shrunk, trace_of_solution
from metrics.metric import DUPLICATION, TRANSFERABILITY, WITHOUT_TEXT, Metric, from_scatter
from metrics.sample import Sample
from metrics.scatter import Scatter, require_classes
from metrics.statistics import Float64, Floats, float64_blocks


def hscore(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """trace(pinv(cov(x)) cov(E[x | y])), in [0, min(C - 1, rank)]; high means that the classes are told apart linearly.

    Images [N, D] of any length, labels [N]; classes without images don't count. Directions in which no image differs
    contribute nothing. Raises MetricError for fewer than two classes with images, and for invalid arrays.

    >>> round(hscore([[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [1.2, 0.0]], [0, 0, 1, 1]), 6)
    0.966667
    """
    return hscore_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)).scatter)


def hscore_of(of: Scatter) -> float:
    """:func:`hscore` from second moments: trace(pinv(W + B) B)."""
    require_classes(of, "hscore")
    used = varying(of)
    return trace_of_solution(of.centred[np.ix_(used, used)], of.class_offsets[:, used], of.count)


def varying(of: Scatter) -> Float64:
    """Which features [D] differ between images by more than the rounding of their mean."""
    squares = np.diag(of.centred)
    return squares > (of.count * np.finfo(np.float64).eps) ** 2 * (squares + of.count * of.mean**2)


def hscore_regularized(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """(1 - a) trace(S_a^-1 cov(E[x | y])) with S_a = (1 - a) S + a (trace(S) / D) I, the covariance shrunk as by Ledoit and Wolf.

    The covariance S is divided by N and that of the class means by N - 1, as in the libraries that offer this measure. Images
    [N, D] of any length, labels [N]; classes without images don't count. In [0, (C - 1) N / (N - 1)]. Raises MetricError for
    fewer than two classes with images, and for invalid arrays.

    >>> round(hscore_regularized([[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [1.2, 0.0]], [0, 0, 1, 1]), 6)
    1.239781
    """
    return hscore_regularized_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


def hscore_regularized_of(sample: Sample) -> float:
    """:func:`hscore_regularized` of a sample."""
    of = sample.scatter
    require_classes(of, "hscore_regularized")
    if not varying(of).any():
        return 0.0
    covariance = of.centred / of.count
    shrinkage = ledoit_wolf_shrinkage(covariance, fourth_powers(sample.images, of.mean), of.count)
    trace = trace_of_solution(shrunk(covariance, shrinkage), of.class_offsets, of.count)
    return (1 - shrinkage) * trace / (of.count - 1)


def ledoit_wolf_shrinkage(covariance: Float64, fourth: float, count: int) -> float:
    """The share a in [0, 1] of the identity that minimises the expected squared error of the shrunk covariance.

    ``fourth`` is sum |x_i - m|^4. Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices" (2004), section 3.3; 0 where the covariance is a multiple of the identity already.
    """
    squared = float(np.vdot(covariance, covariance))
    distance = squared - float(np.trace(covariance)) ** 2 / len(covariance)  # from the nearest multiple of the identity
    error = (fourth / count - squared) / count
    return min(error, distance) / distance if distance > 0 and error > 0 else 0.0


def fourth_powers(images: Floats, mean: Float64) -> float:
    """sum |x_i - m|^4."""
    total = 0.0
    for _, block in float64_blocks(images):
        np.subtract(block, mean, out=block)
        total += float((np.einsum("ij,ij->i", block, block) ** 2).sum())
    return total


METRICS = (
    Metric(
        "hscore",
        "H-score: trace of the between-class covariance in units of the covariance",
        hscore,
        from_scatter(hscore_of),
        higher_is="classes better told apart linearly",
        family=TRANSFERABILITY,
        range=(0.0, np.inf),
        needs_text=False,
        min_images=2,
        min_classes=2,
        invariances=WITHOUT_TEXT | {DUPLICATION},
        cost="O(N D^2 + D^3)",
    ),
    Metric(
        "hscore_regularized",
        "H-score with the covariance shrunk towards the identity (Ledoit-Wolf)",
        hscore_regularized,
        hscore_regularized_of,
        higher_is="classes better told apart linearly",
        family=TRANSFERABILITY,
        range=(0.0, np.inf),
        needs_text=False,
        min_images=2,
        min_classes=2,
        invariances=WITHOUT_TEXT,
        cost="O(N D^2 + D^3)",
    ),
)
