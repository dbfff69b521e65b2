"""The modality gap: how far the images as a whole lie from the texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, Metric, from_statistics
from metrics.statistics import Statistics, require, statistics


def gap(image_embeddings: ArrayLike, text_embeddings: ArrayLike) -> float:
    """Euclidean distance of the mean image from the mean text, |s/N - t/C|, in [0, 2].

    Images [N, D], texts [C, D], unit rows; each class text counts once, however many images it has. Raises MetricError
    for N < 1, C < 1 and invalid arrays. Source: Liang et al., "Mind the Gap" (NeurIPS 2022), section 2.

    >>> round(gap([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]), 6)
    0.105409
    """
    return gap_of(statistics(image_embeddings, text_embeddings))


def gap_of(of: Statistics) -> float:
    """:func:`gap` from statistics."""
    require(of.images.count, 1, "image", "gap")
    require(len(of.texts), 1, "class text", "gap")
    return float(np.linalg.norm(of.images.total / of.images.count - of.texts.mean(axis=0)))


METRIC = Metric(
    "gap",
    "modality gap: distance of the mean image from the mean text",
    gap,
    from_statistics(gap_of),
    higher_is="images and texts further apart",
    range=(0.0, 2.0),
    needs_labels=False,
    invariances=ALWAYS | {DUPLICATION},
    released_names=("gap",),
)
