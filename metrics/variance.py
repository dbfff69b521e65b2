"""How widely images are spread, and how much of that lies between classes: functions of sums, O(N D)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import DUPLICATION, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.statistics import ImageSums, MetricError, image_sums, require

ROUNDING = 1e-12  # of sum |x_i|^2: sums of squares that cancel to less are zero


def total_variance(image_embeddings: ArrayLike) -> float:
    """Trace of the covariance, sum_i |x_i - m|^2 / N = sum_i |x_i|^2 / N - |m|^2 with m the mean image, in [0, 1].

    It is 1 - |m|^2 for unit rows [N, D], so "more variance" says exactly "smaller mean cosine"; it does not tell whether
    classes are apart. Raises MetricError for N < 1 and invalid arrays. Reported by Kravets and Namboodiri (BMVC 2024).

    >>> total_variance([[1.0, 0.0], [0.0, 1.0]])
    0.5
    """
    return total_variance_of(image_sums(image_embeddings))


def between_within_ratio(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Scatter between classes over scatter within, sum_c n_c |m_c - m|^2 / sum_i |x_i - m_k(i)|^2, 0 or more.

    Images [N, D] of unit rows, labels [N]; m_c is the mean of class c, of n_c images. Classes without images count for
    nothing; with images of one class only the ratio is 0. Raises MetricError for N < 2, invalid arrays, and where the images
    of each class are equal (to 1e-12 of their squared length), as they are when each class has one image.

    >>> round(between_within_ratio([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 1, 1]), 6)
    1.8
    """
    return between_within_ratio_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)).image_sums)


def total_variance_of(images: ImageSums) -> float:
    """:func:`total_variance` from the sums over the images."""
    require(images.count, 1, "image", "total_variance")
    return _without_rounding(images.squared_length - _squared_length(images), images) / images.count


def between_within_ratio_of(images: ImageSums) -> float:
    """:func:`between_within_ratio` from the sums over the images."""
    require(images.count, 2, "image", "between_within_ratio")
    class_part = float((np.square(images.class_sums).sum(axis=1) / np.maximum(images.class_counts, 1)).sum())
    within = _without_rounding(images.squared_length - class_part, images)
    if not within:
        raise MetricError("between_within_ratio is undefined: in each class all images are equal.")
    return _without_rounding(class_part - _squared_length(images), images) / within


def _squared_length(images: ImageSums) -> float:
    """N |m|^2."""
    return float(images.total @ images.total) / images.count


def _without_rounding(difference: float, images: ImageSums) -> float:
    return difference if difference > ROUNDING * images.squared_length else 0.0


METRICS = (
    Metric(
        "total_variance",
        "total variance of the images: trace of their covariance",
        total_variance,
        lambda sample: total_variance_of(sample.image_sums),
        higher_is="images more spread out",
        range=(0.0, 1.0),
        needs_text=False,
        needs_labels=False,
        invariances=WITHOUT_TEXT | {DUPLICATION},
    ),
    Metric(
        "between_within_ratio",
        "scatter of the class means over scatter within classes",
        between_within_ratio,
        lambda sample: between_within_ratio_of(sample.image_sums),
        higher_is="classes further apart for their size",
        range=(0.0, np.inf),
        needs_text=False,
        min_images=2,
        invariances=WITHOUT_TEXT | {DUPLICATION},
    ),
)
