"""TransRate: how many nats the labels save when the features are coded up to a small distortion.

Huang et al., "Frustratingly Easy Transferability Estimation" (ICML 2022).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from metrics.linear_algebra import half_log_determinant_of_one_plus, one_thread
from metrics.metric import DUPLICATION, TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.scatter import require_classes
from metrics.statistics import Float64, Floats, Labels, float64_blocks

EPSILON = 1e-4  # the distortion of the paper


def transrate(image_embeddings: ArrayLike, labels: ArrayLike, eps: float = EPSILON) -> float:
    """R(Z) - sum_c (n_c / N) R(Z_c), at least 0, with the coding rate R(Z) = log det(I + Z^T Z / (n eps)) / 2 of n rows.

    Z are the images less their mean, Z_c those of class c (less the mean of all). Images [N, D] of any length, labels
    [N]; classes without images don't count. High means that few directions are shared by the classes. Not invariant to scale:
    eps is in squared units of the features. Raises MetricError for fewer than two classes with images, and invalid arrays.

    >>> round(transrate([[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [1.2, 0.0]], [0, 0, 1, 1]), 6)
    0.104325
    """
    return transrate_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)), eps)


def transrate_of(sample: Sample, eps: float = EPSILON) -> float:
    """:func:`transrate` of a sample."""
    counts = sample.scatter.compact.class_counts
    whole, classes = coding_rates(sample, eps)
    return whole - float(counts @ classes) / len(sample)


def transrate_as_released(sample: Sample) -> float:
    """TransRate with every class weighted by 1 / C instead of its share of the images; may be negative."""
    whole, classes = coding_rates(sample, EPSILON)
    return whole - float(classes.mean())


def coding_rates(sample: Sample, eps: float) -> tuple[float, Float64]:
    """R(Z), and R(Z_c) of each class that has images."""
    of = sample.scatter
    require_classes(of, "transrate")
    whole = half_log_determinant_of_one_plus(of.centred / (of.count * eps))
    grams = class_grams(sample.images, sample.known_labels, of.mean)
    with one_thread():
        return whole, np.array([half_log_determinant_of_one_plus(gram / (count * eps)) for count, gram in grams])


def class_grams(images: Floats, labels: Labels, mean: Float64) -> Iterator[tuple[int, Float64]]:
    """For each class with images: n_c, and Z_c Z_c^T or Z_c^T Z_c, whichever is smaller; both have the same determinant."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    for rows in np.split(order, np.cumsum(counts)[:-1]):
        if len(rows):
            yield len(rows), small_gram(images, rows, mean)


def small_gram(images: Floats, rows: Labels, mean: Float64) -> Float64:
    """The smaller Gram matrix of the chosen rows less ``mean``."""
    if len(rows) <= len(mean):
        centred = images[rows] - mean
        return centred @ centred.T
    gram = np.zeros((len(mean), len(mean)))
    for _, block in float64_blocks(images, rows):
        np.subtract(block, mean, out=block)
        gram += block.T @ block
    return gram


METRIC = Metric(
    "transrate",
    "TransRate: coding rate of the features less that of each class",
    transrate,
    transrate_of,
    higher_is="more known of a feature from its label",
    family=TRANSFERABILITY,
    range=(0.0, np.inf),
    needs_text=False,
    min_images=2,
    min_classes=2,
    invariances=WITHOUT_TEXT | {DUPLICATION},
    as_released=transrate_as_released,
    released_note="every class weighs 1/C; the formula weighs it by its share of the images",
    cost="O(N D^2 + D^3 + sum_c min(n_c, D)^2 max(n_c, D))",
)
