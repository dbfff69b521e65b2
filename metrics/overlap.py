"""Intra-modal overlap: how far the similarities of images of the same class and of different classes coincide.

Kravets and Namboodiri, "CLIP Adaptation by Intra-modal Overlap Reduction" (BMVC 2024, arXiv 2409.11338), compare the two
distributions of cosines x_i.x_j. With p and q the histograms of pairs of different classes and of the same class, each
summing to 1, over B = 200 equal bins of [-1, 1] (bins and range are fixed, so that models and data sets compare):

    overlap           sum_b min(p_b, q_b) = 1 - TV(p, q)
    proxy_a_distance  2 (1 - 2 error) = 2 (1 - overlap)
    bhattacharyya     sum_b sqrt(p_b q_b)
    auroc             P(same > different) + P(same = different) / 2, from ranks instead of bins

Every pair i < j counts once, never i = j. All four come from one pass over the pairs (:mod:`metrics.pair_counts`). Classes
without images change nothing. The standard errors are those of the infinitesimal jackknife over images: with U_i the
derivative of the measure by the weight of image i, sqrt(sum_i U_i^2); for few images it is rather too large than too small.
(Resampling images would pair them with copies of themselves.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import WITHOUT_TEXT, Metric
from metrics.once import once_per_sample
from metrics.pair_counts import BINS, CELLS, Counts, Pairs, pairs_of, probability_below, shares
from metrics.sample import Sample
from metrics.statistics import Float64


def overlap(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Histogram overlap sum_b min(p_b, q_b) in [0, 1]: 0 when a threshold bin parts the two kinds of pairs, 1 when they are alike.

    Images [N, D] of unit rows, labels [N]; O(N^2 D) time, O(N D) memory. Raises MetricError for invalid arrays and when no
    two images are of the same class or none of different classes. A similarity on the border of two bins counts in the
    upper one, as does one that is less than 2.4e-11 below it.

    >>> round(overlap([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 0, 1]), 6)
    0.666667
    """
    return overlap_of(_pairs(image_embeddings, labels))


def proxy_a_distance(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Proxy A-distance 2 (1 - 2 error) in [0, 2], of the best classifier that sees only the bin of a pair's similarity.

    With both kinds of pairs equally likely its error is overlap / 2, so this is 2 (1 - overlap): no classifier is trained and
    no pairs are held out. Arguments and errors as in :func:`overlap`. Source: Ben-David et al. (NIPS 2006).

    >>> round(proxy_a_distance([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 0, 1]), 6)
    0.666667
    """
    return proxy_a_distance_of(_pairs(image_embeddings, labels))


def bhattacharyya(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Bhattacharyya coefficient sum_b sqrt(p_b q_b) in [0, 1], never below the overlap; arguments as in :func:`overlap`.

    >>> round(bhattacharyya([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 0, 1]), 6)
    0.666667
    """
    return bhattacharyya_of(_pairs(image_embeddings, labels))


def auroc(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """P(same > different) + P(same = different) / 2 over pairs of pairs, in [0, 1]: 0.5 when the two kinds are alike.

    Arguments and errors as in :func:`overlap`. Exact (similarities within 2^-40 are ties) for up to 2048 images. For more,
    similarities are ranked by cells of width 2.4e-6, which moves the result by less than :func:`auroc_resolution`, of
    the order of 1e-6.

    >>> auroc([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 1, 1])
    0.75
    """
    return auroc_of(_pairs(image_embeddings, labels))


def overlap_of(pairs: Pairs) -> float:
    """:func:`overlap` of pairs."""
    return float(np.minimum(*histograms(pairs.cells, "overlap")).sum())


def proxy_a_distance_of(pairs: Pairs) -> float:
    """:func:`proxy_a_distance` of pairs."""
    return 2 * (1 - float(np.minimum(*histograms(pairs.cells, "proxy_a_distance")).sum()))


def bhattacharyya_of(pairs: Pairs) -> float:
    """:func:`bhattacharyya` of pairs."""
    different, same = histograms(pairs.cells, "bhattacharyya")
    return float(np.sqrt(different * same).sum())


def auroc_of(pairs: Pairs) -> float:
    """:func:`auroc` of pairs."""
    different, same = shares(pairs.ranked, "auroc")
    return float(same @ probability_below(different))


def auroc_resolution(counts: Counts) -> float:
    """By how much at most the AUROC of the similarities differs from that of the cells they are in: sum_b p_b q_b / 2."""
    different, same = shares(counts, "auroc")
    return float(different @ same) / 2


def histograms(counts: Counts, measure: str) -> tuple[Float64, Float64]:
    """The shares of pairs of different classes and of the same class in each of the 200 bins, from counts by cell."""
    return shares(counts.reshape(2, BINS, -1).sum(axis=2), measure)


@once_per_sample
def standard_errors(sample: Sample) -> dict[str, float]:
    """The standard errors of all four measures, from one more pass over the pairs."""
    pairs = pairs_of(sample)
    derivatives = pairs.sums_over_partners(_derivatives(pairs.cells))
    overlap_, bhattacharyya_, auroc_ = np.linalg.norm(derivatives, axis=1).tolist()
    return {"overlap": overlap_, "proxy_a_distance": 2 * overlap_, "bhattacharyya": bhattacharyya_, "auroc": auroc_}


def _derivatives(counts: Counts) -> Float64:
    """Derivatives [3, 2, CELLS] of overlap, bhattacharyya and auroc by the number of pairs in each cell.

    If f depends on shares p_b = n_b / n, then df/dn_b = (df/dp_b - sum_a p_a df/dp_a) / n.
    """
    p, q = histograms(counts, "overlap")
    root = np.sqrt(p * q)
    by_bin = np.array(
        [
            [(p < q) + (p == q) / 2, (q < p) + (p == q) / 2],
            [np.divide(root, p, out=np.zeros(BINS), where=p > 0) / 2, np.divide(root, q, out=np.zeros(BINS), where=q > 0) / 2],
        ]
    )
    fine_p, fine_q = shares(counts, "auroc")
    by_share = np.concatenate([by_bin.repeat(CELLS // BINS, axis=2), [[1 - probability_below(fine_q), probability_below(fine_p)]]])
    means = np.einsum("tkb,kb->tk", by_share, np.array([fine_p, fine_q]))
    return (by_share - means[:, :, None]) / counts.sum(axis=1)[:, None]


def _pairs(image_embeddings: ArrayLike, labels: ArrayLike) -> Pairs:
    return pairs_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


EASIER, HARDER = "classes easier to tell by image similarity", "classes harder to tell by image similarity"


def _metric(function: Callable[..., float], of: Callable[[Pairs], float], description: str, higher_is: str, greatest: float) -> Metric:
    """The entry of a measure of the pairs; all four share the pass over the pairs and that for their errors."""
    name = function.__name__
    return Metric(
        name,
        description,
        function,
        lambda sample: of(pairs_of(sample)),
        higher_is=higher_is,
        range=(0.0, greatest),
        needs_text=False,
        min_images=3,
        min_classes=2,
        invariances=WITHOUT_TEXT,
        standard_error=lambda sample: standard_errors(sample)[name],
        bootstrap=False,
        cost="O(N^2 D)",
    )


METRICS = (
    _metric(
        overlap,
        overlap_of,
        "overlap of the histograms of image similarities within and between classes (200 bins on [-1, 1])",
        HARDER,
        1.0,
    ),
    _metric(
        proxy_a_distance,
        proxy_a_distance_of,
        "2 (1 - overlap): how well the best threshold on similarity tells pairs of the same class",
        EASIER,
        2.0,
    ),
    _metric(bhattacharyya, bhattacharyya_of, "Bhattacharyya coefficient of the same two histograms", HARDER, 1.0),
    _metric(auroc, auroc_of, "probability that a pair of the same class is more similar than a pair of different classes", EASIER, 1.0),
)
