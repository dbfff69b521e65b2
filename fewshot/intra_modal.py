"""How alike image similarities within and between classes are, and how widely images are spread: what an adapter is to change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.overlap import auroc_of, overlap_of
from metrics.pair_counts import pairs_of
from metrics.sample import Sample
from metrics.variance import between_within_ratio_of, total_variance_of


@dataclass(frozen=True)
class IntraModal:
    """The measures of some unit image embeddings; see :mod:`metrics.overlap` and :mod:`metrics.variance`.

    The variances are traces of covariances: total = within + between, that of the images about their class means and that of the
    class means about the mean of all.
    """

    overlap: float
    proxy_a_distance: float
    auroc: float
    total_variance: float
    within_variance: float
    between_variance: float


def intra_modal(embeddings: ArrayLike, labels: ArrayLike) -> IntraModal:
    """The measures of unit rows [N, D] with labels [N]; O(N^2 D) time, O(N D) memory.

    Raises MetricError when no two images are of one class, none of different classes, or the images of each class are equal.
    """
    sample = Sample(np.asarray(embeddings), labels=np.asarray(labels))
    overlap, total = overlap_of(pairs_of(sample)), total_variance_of(sample.image_sums)
    within = total / (1 + between_within_ratio_of(sample.image_sums))
    return IntraModal(
        overlap=overlap,
        proxy_a_distance=2 * (1 - overlap),
        auroc=auroc_of(pairs_of(sample)),
        total_variance=total,
        within_variance=within,
        between_variance=total - within,
    )
