"""LogME: the evidence of a Bayesian linear model from the features to the labels, at its maximum.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning" (ICML 2021). For each class the target y
is 1 for its images and 0 for others; y = X w + noise, with w ~ N(0, I / a) and noise ~ N(0, I / b). With l = a / b, s_j the r
positive eigenvalues of X^T X and z_j the projections of y on the left singular vectors of X, the best b for given l is
N / Q(l), where Q(l) = |y|^2 - sum_j z_j^2 s_j / (l + s_j), which leaves the evidence a function of l alone:

    L(l) = (sum_j log(l / (l + s_j)) + N log(N / Q(l)) - N log(2 pi) - N) / 2

All classes share the s_j, and |z|^2 comes from the sums of their images, so no one-hot matrix is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.linear_algebra import EPSILON, positive_eigen
from metrics.metric import TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.scatter import Scatter, require_classes
from metrics.statistics import Float64, Labels, MetricError

GRID_STEP = 0.5  # in log l; L is a sum of logistic curves in it, all wider than 1
HALVINGS = 30  # of two steps: log l to 1e-9, and at a maximum L to the square of that
RELEASED_STEPS, RELEASED_CHANGE, RELEASED_GUARD = 11, 1e-3, 1e-5  # of the fixed-point iteration that was released


def logme(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Mean over classes of max_l L(l) / N; high means labels that are a linear function of the features, with small weights.

    Images [N, D] of any length, labels [N], with fewer or more images than dimensions; classes without images don't count.
    Raises MetricError for fewer than two classes with images, for invalid arrays, and when a linear function of fewer features
    than images gives the labels without error, since the evidence then has no bound.

    >>> round(logme([[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [1.2, 0.0]], [0, 0, 1, 1]), 6)
    -0.409349
    """
    return logme_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


def logme_of(sample: Sample) -> float:
    """:func:`logme` of a sample; with fewer images than dimensions from X X^T, else from X^T X."""
    return mean_evidence(regression_of(sample))


@dataclass(frozen=True, eq=False)
class Regression:
    """``count`` N, ``eigenvalues`` s_j [r], ``projections`` z_j^2 of each class [K, r], ``residuals`` |y|^2 - |z|^2 [K]."""

    count: int
    dimensions: int
    eigenvalues: Float64
    projections: Float64
    residuals: Float64

    @property
    def lengths(self) -> Float64:
        """|y|^2 [K], the number of images of each class."""
        return self.residuals + self.projections.sum(axis=1)


def regression_of(sample: Sample) -> Regression:
    """The regression of the labels on the images, from the smaller of the two Gram matrices."""
    require_classes(sample.class_means, "logme")
    if len(sample) >= sample.images.shape[1]:
        return regression_from_scatter(sample.scatter)
    images = sample.images.astype(np.float64)
    values, vectors = positive_eigen(images @ images.T, images.shape[1])
    projections = _class_sums(vectors, sample.present.labels, len(sample.present.classes)) ** 2
    counts = sample.class_means.class_counts[sample.present.classes].astype(np.float64)
    residuals = np.zeros_like(counts) if len(values) == len(images) else counts - projections.sum(axis=1)
    return _regression(len(images), images.shape[1], values, projections, residuals)


def regression_from_scatter(of: Scatter) -> Regression:
    """The same from second moments alone: z_j^2 = (v_j . class sum)^2 / s_j for eigenvectors v_j of X^T X."""
    values, vectors = positive_eigen(of.gram, of.count)
    projections = (of.compact.class_sums @ vectors) ** 2 / values
    counts = of.compact.class_counts.astype(np.float64)
    return _regression(of.count, len(of.gram), values, projections, counts - projections.sum(axis=1))


def _regression(count: int, dimensions: int, values: Float64, projections: Float64, residuals: Float64) -> Regression:
    """Residuals within their rounding are 0: that of |y|^2, and that of the eigenvalues times the squared weights."""
    counts = residuals + projections.sum(axis=1)
    weights = (projections / values).sum(axis=1)
    rounding = 10 * EPSILON * (count * counts + values.max(initial=0.0) * weights)
    return Regression(count, dimensions, values, projections, np.where(residuals <= rounding, 0.0, residuals))


def _class_sums(vectors: Float64, labels: Labels, classes: int) -> Float64:
    sums = np.zeros((classes, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    return sums


def mean_evidence(of: Regression) -> float:
    """Mean over classes of the greatest evidence per image: inside the range of l, or in one of its two limits."""
    exact = (of.residuals == 0) & (len(of.eigenvalues) < of.count)
    if exact.any():
        raise MetricError("logme has no bound when a linear function of the features gives the labels without any error.")
    greatest = evidence_without_weights(of)
    if len(of.eigenvalues):
        greatest = np.maximum(greatest, evidence(of, best_ratios(of)))
        if len(of.eigenvalues) == of.count:
            greatest = np.maximum(greatest, evidence_without_noise(of))
    return float(greatest.mean()) / of.count


def evidence(of: Regression, ratios: Float64) -> Float64:
    """L(l) of each class [K] at its own ratio l [K]."""
    shares = ratios[:, None] / (ratios[:, None] + of.eigenvalues)
    errors = of.residuals + (of.projections * shares).sum(axis=1)
    return _evidence(of.count, np.log(shares).sum(axis=1), errors)


def _evidence(count: int, log_shares: Float64, errors: Float64) -> Float64:
    return (log_shares + count * (np.log(count / errors) - np.log(2 * np.pi) - 1)) / 2


def evidence_without_weights(of: Regression) -> Float64:
    """L as l grows without end: all is noise."""
    return _evidence(of.count, np.zeros(len(of.residuals)), of.lengths)


def evidence_without_noise(of: Regression) -> Float64:
    """L as l goes to 0, when as many features as images explain every label; what grows and what falls with l cancel."""
    return _evidence(of.count, np.full(len(of.residuals), -np.log(of.eigenvalues).sum()), (of.projections / of.eigenvalues).sum(axis=1))


def best_ratios(of: Regression) -> Float64:
    """The l of each class [K] where L is greatest: the best of a grid, refined by halving where its slope changes sign."""
    margin = 30 + np.log(of.count)  # beyond, L has reached its limit to rounding
    logs = np.arange(np.log(of.eigenvalues[-1]) - margin, np.log(of.eigenvalues[0]) + margin, GRID_STEP)
    shares = 1 / (1 + np.outer(of.eigenvalues, np.exp(-logs)))
    errors = of.residuals[:, None] + of.projections @ shares
    best = logs[np.argmax(_evidence(of.count, np.log(shares).sum(axis=0), errors), axis=1)]
    low, high = best - GRID_STEP, best + GRID_STEP
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rising = slope(of, np.exp(middle)) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.exp((low + high) / 2)


def slope(of: Regression, ratios: Float64) -> Float64:
    """2 dL / d log l of each class [K]: the effective number of weights, less N times their share of the error."""
    shares = ratios[:, None] / (ratios[:, None] + of.eigenvalues)
    kept = of.projections * shares
    return (1 - shares).sum(axis=1) - of.count * (kept * (1 - shares)).sum(axis=1) / (of.residuals + kept.sum(axis=1))


def logme_as_released(sample: Sample) -> float:
    """The fixed-point iteration of thuml/LogME, from a = b = 1 and for at most 11 steps.

    It counts log(a) for all D weights, but log(a + b s_j) for min(N, D) of them only, which is no evidence for N < D. For
    N >= D it differs by its tolerance alone.
    """
    of = regression_of(sample)
    ratios, values = np.ones(len(of.residuals)), np.zeros(len(of.residuals))
    moving = np.ones(len(ratios), bool)
    for _ in range(RELEASED_STEPS):
        step = _released_step(of, ratios)
        values, new = np.where(moving, step[0], values), np.where(moving, step[1], ratios)
        moving &= np.abs(new - ratios) > RELEASED_CHANGE * ratios
        ratios = new
    return float(values.mean())


def _released_step(of: Regression, ratios: Float64) -> tuple[Float64, Float64]:
    """Evidence per image as released, and the next ratio."""
    known = of.eigenvalues / (ratios[:, None] + of.eigenvalues)
    weights = (of.projections * known / (ratios[:, None] + of.eigenvalues)).sum(axis=1)
    errors = of.residuals + (of.projections * (1 - known) ** 2).sum(axis=1)
    a = known.sum(axis=1) / (weights + RELEASED_GUARD)
    b = (of.count - known.sum(axis=1)) / (errors + RELEASED_GUARD)
    zeros = min(of.count, of.dimensions) - len(of.eigenvalues)  # singular values of zero, which it counts too
    logs = np.log(a[:, None] + b[:, None] * of.eigenvalues).sum(axis=1) + zeros * np.log(a)
    total = of.dimensions * np.log(a) + of.count * np.log(b / (2 * np.pi)) - logs - b * errors - a * weights
    return total / (2 * of.count), a / b


METRIC = Metric(
    "logme",
    "LogME: greatest log evidence per image of a linear model from features to labels",
    logme,
    logme_of,
    higher_is="labels more nearly a simple linear function of the features",
    family=TRANSFERABILITY,
    range=(-np.inf, np.inf),
    needs_text=False,
    min_images=2,
    min_classes=2,
    invariances=WITHOUT_TEXT,
    as_released=logme_as_released,
    released_note="an iteration of at most 11 steps, which for fewer images than dimensions is no evidence",
    cost="O(N D min(N, D) + C min(N, D))",
)
