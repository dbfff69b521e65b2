"""SFDA: how well a discriminant analysis knows the classes after the images it was sure of were made harder.

Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher Space" (ECCV 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from metrics.discriminant import Discriminant, discriminant, require_spread
from metrics.linear_algebra import shrunk
from metrics.metric import DUPLICATION, TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.scatter import Scatter, blocks_by_class, class_means_of_blocks, require_classes, scatter_about
from metrics.statistics import Float64, Labels

DECAY, LEAST_SHRINKAGE = 5.0, 1e-10  # of the paper: shrinkage = exp(-5 times the greatest eigenvalue within classes)


def sfda(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Mean probability of the correct class, in [0, 1]; high means classes that stay apart when mixed.

    1. Discriminant analysis with the covariance within classes S shrunk by a = max(exp(-5 l), 1e-10), l its greatest eigenvalue.
    2. q_i = softmax(p(. | x_i)) of the correct class; x_i becomes q_i x_i + (1 - q_i) o_y(i), where o_y is the mean of the other
       classes' means: the surer, the nearer to itself it stays.
    3. Discriminant analysis of the mixed images, with the same a; the score is the mean of p(y(i) | x_i).

    Images [N, D] of any length, labels [N]; classes without images don't count. Made for features with variances far above 1:
    unit rows have l below 1 / 2, mostly below 0.05, so that a is near 1 and S near a multiple of the identity. Inputs are not written
    to (the released code mixes in place). Raises MetricError for fewer than two classes with images, when no class has two different
    images, and for invalid arrays.

    >>> round(sfda([[0.0, 1.0], [0.2, 0.6], [0.3, 0.1], [0.6, 0.0]], [0, 0, 1, 1]), 6)
    0.927399
    """
    return sfda_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


def sfda_of(sample: Sample) -> float:
    """:func:`sfda` of a sample."""
    return self_challenged(sample, greatest_eigenvalue)


def sfda_as_released(sample: Sample) -> float:
    """SFDA with the greatest eigenvalue from six steps of the power method, as in the released code."""
    return self_challenged(sample, power_method)


def greatest_eigenvalue(matrix: Float64) -> float:
    """The greatest eigenvalue of a symmetric matrix."""
    last = len(matrix) - 1
    return float(linalg.eigh(matrix, eigvals_only=True, subset_by_index=[last, last], check_finite=False)[0])


def power_method(matrix: Float64) -> float:
    """An estimate from below, after six steps from the sum of all columns."""
    previous = vector = matrix.sum(axis=1)
    for _ in range(6):
        product = matrix @ vector
        previous, vector = vector, product / np.linalg.norm(product)
    return float(vector @ matrix @ previous)


def self_challenged(sample: Sample, eigenvalue: Callable[[Float64], float]) -> float:
    """The three steps; ``eigenvalue`` gives the greatest one of the covariance within classes."""
    require_classes(sample.scatter, "sfda")
    require_spread(sample.scatter, "sfda")
    of, labels = sample.scatter.compact, sample.present.labels
    shrinkage = max(float(np.exp(-DECAY * eigenvalue(of.within / of.count))), LEAST_SHRINKAGE)
    first = shrunk_discriminant(of, shrinkage)
    kept = np.empty(len(sample))
    for rows, classes, block in blocks_by_class(sample.images, labels):
        kept[rows] = softened(first, block, classes)
    others = (of.class_means.sum(axis=0) - of.class_means) / (len(of.class_means) - 1)

    def mixed() -> Iterator[tuple[Labels, Labels, Float64]]:
        for rows, classes, block in blocks_by_class(sample.images, labels):
            yield rows, classes, mix(block, others[classes], kept[rows])

    second = shrunk_discriminant(scatter_about(class_means_of_blocks(mixed, *others.shape), mixed), shrinkage)
    return sum(float(own(second.probabilities(block), classes).sum()) for _, classes, block in mixed()) / len(sample)


def shrunk_discriminant(of: Scatter, shrinkage: float) -> Discriminant:
    """Discriminant analysis with the covariance within classes shrunk towards a multiple of the identity."""
    return discriminant(of, shrunk(of.within / of.count, shrinkage))


def mix(rows: Float64, others: Float64, kept: Float64) -> Float64:
    """q_i x_i + (1 - q_i) o_i, written over the rows x [n, D]; o [n, D], q [n]."""
    rows -= others
    rows *= kept[:, None]
    rows += others
    return rows


def softened(by: Discriminant, rows: Float64, labels: Labels) -> Float64:
    """softmax(p) of the correct class: the probabilities taken for scores."""
    grown = np.exp(by.probabilities(rows))
    return own(grown, labels) / grown.sum(axis=1)


def own(values: Float64, labels: Labels) -> Float64:
    """The value [n] of each row's own class, from values [n, K]."""
    return values[np.arange(len(labels)), labels]


METRIC = Metric(
    "sfda",
    "SFDA: mean probability of the correct class in a self-challenging discriminant analysis",
    sfda,
    sfda_of,
    higher_is="classes stay apart when images are mixed with other classes",
    family=TRANSFERABILITY,
    range=(0.0, 1.0),
    needs_text=False,
    min_images=3,
    min_classes=2,
    invariances=WITHOUT_TEXT | {DUPLICATION},
    as_released=sfda_as_released,
    released_note="the greatest eigenvalue is estimated by six steps of the power method; its images are overwritten, here they are not",
    cost="O(N D (D + C) + D^3)",
)
