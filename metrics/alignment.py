"""How close images are to the text of their own class."""

from __future__ import annotations

from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, EMPTY_CLASS, Metric, from_statistics
from metrics.statistics import Statistics, require, statistics


def alignment(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Mean cosine of correct pairs, sum_i x_i.t_k(i) / N, in [-1, 1]; high means images lie at their caption.

    Images [N, D], texts [C, D], labels [N], unit rows. Raises MetricError for N < 1 and invalid arrays. Source: the
    alignment of Wang and Isola (ICML 2020) as a cosine; the released IIMM code's ``cos_sim``.

    >>> images, texts = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(alignment(images, texts, labels=[0, 0, 1]), 6)
    0.866667
    """
    return alignment_of(statistics(image_embeddings, text_embeddings, labels))


def alignment_of(of: Statistics) -> float:
    """:func:`alignment` from statistics."""
    require(of.images.count, 1, "image", "alignment")
    return of.correct_sum / of.images.count


METRIC = Metric(
    "alignment",
    "mean cosine of images with the text of their own class",
    alignment,
    from_statistics(alignment_of),
    higher_is="images closer to their correct caption",
    invariances=ALWAYS | {DUPLICATION, EMPTY_CLASS},
    released_names=("cos_sim",),
)
