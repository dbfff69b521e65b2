"""How close the images of other classes come to a class's text."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, Metric, from_statistics
from metrics.statistics import MetricError, Statistics, require, statistics


def uniformity_text(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Mean over texts of the mean cosine with the images of OTHER classes, in [-1, 1].

    mean_k t_k.(s - s_k) / (N - n_k), where s_k and n_k are the sum and number of the images of class k: every class
    counts the same, unlike in ``wrong_label``, where every image does. Images [N, D], texts [C, D], labels [N], unit
    rows. Raises MetricError for N < 2, C < 2, invalid arrays, and when all images are of one class, since its text then has no
    image of another class. Source: ``uniformity_text`` of the released IIMM code.

    >>> images, texts = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(uniformity_text(images, texts, labels=[0, 0, 1]), 6)
    0.2
    """
    return uniformity_text_of(statistics(image_embeddings, text_embeddings, labels))


def uniformity_text_of(of: Statistics) -> float:
    """:func:`uniformity_text` from statistics."""
    images = of.images
    require(images.count, 2, "image", "uniformity_text")
    require(len(of.texts), 2, "class text", "uniformity_text")
    others = images.count - images.class_counts
    if not others.all():
        raise MetricError(f"uniformity_text is undefined when all images are of one class ({int(np.argmin(others))}).")
    cosines = of.texts @ images.total - np.einsum("kd,kd->k", of.texts, images.class_sums)
    return float(np.mean(cosines / others))


METRIC = Metric(
    "uniformity_text",
    "mean over texts of their mean cosine with the images of other classes",
    uniformity_text,
    from_statistics(uniformity_text_of),
    higher_is="texts closer to images of other classes",
    min_images=2,
    min_classes=2,
    invariances=ALWAYS | {DUPLICATION},
    released_names=("uniformity_text",),
)
