"""PARC: whether images that have the same label are the ones that look alike.

Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning" (NeurIPS 2021, arXiv 2111.06977).

The dissimilarity of two images is 1 - the Pearson correlation of their embeddings over dimensions, that of their labels
1 - the correlation of the one-hot labels; PARC is 100 times the Spearman correlation of the two over all pairs. Of the
latter there are only two values, so the correlation of ranks is that of a Mann-Whitney test. With A the probability that a
pair of the same class is better correlated than one of different classes (ties count half), w the share of pairs of the same
class, and r_b the shares of pairs with equal correlation,

    parc = 100 sqrt(12 w (1 - w) / (1 - sum_b r_b^3)) (A - 1/2)

It is thus an AUROC (see :mod:`metrics.overlap`) times a factor that falls with the number of classes: with K equally large
classes |parc| is at most about 173 sqrt((K - 1) / K^2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import CLASS_ORDER, EMPTY_CLASS, IMAGE_ORDER, TRANSFERABILITY, Metric
from metrics.once import once_per_sample
from metrics.pair_counts import Counts, Pairs, probability_below, shares
from metrics.sample import Sample
from metrics.scatter import check_finite
from metrics.statistics import Float64, MetricError, require

RELEASED_COMPONENTS = 32  # "PARC f=32", to which the released code reduces embeddings
SAME_NUMBER = 1e-12  # relative: values that differ by less are the same number, rounded


def parc(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """100 times the rank correlation of image and label dissimilarities over pairs i < j, in [-100, 100].

    Images [N, D] of any length, labels [N]; classes without images change nothing. All pairs are used, none drawn: O(N^2 D)
    time, O(N D) memory. Exact (correlations within 2^-40 are ties) for up to 2048 images; for more, correlations are ranked by
    cells of width 2.4e-6, which moves the result by less than 1e-4 on any usual data. Raises MetricError for N < 3,
    invalid arrays, an image whose dimensions are all equal, and when all pairs are alike in label or in correlation.

    >>> images = [[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.1, 0.9], [0.0, 0.0, 1.0]]
    >>> round(parc(images, labels=[0, 0, 1, 1]), 6)
    85.280287
    """
    return parc_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


def parc_of(sample: Sample) -> float:
    """:func:`parc` of a sample."""
    return _score(_correlated_pairs(sample).ranked)


def parc_as_released(sample: Sample) -> float:
    """PARC of the standardised first 32 principal components.

    The sign of a component decides here (a correlation over dimensions changes when one is negated); as in the released
    code the largest entry of each is positive. Its components come from a randomised solver, these are exact.
    """
    require(len(sample), 3, "image", "parc")
    images = _finite(sample)
    images -= images.mean(axis=0)
    left, values, _ = np.linalg.svd(images, full_matrices=False)
    kept = np.flatnonzero(values[:RELEASED_COMPONENTS] > SAME_NUMBER * values[0])
    left *= np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    return _score(_correlated(left[:, kept], sample).ranked)


def parc_standard_error(sample: Sample) -> float:
    """Infinitesimal jackknife over images: sqrt(sum_i U_i^2), U_i the derivative of PARC by the weight of image i."""
    pairs = _correlated_pairs(sample)
    return float(np.linalg.norm(pairs.sums_over_partners(_derivatives(pairs.cells)[None])))


def _score(counts: Counts) -> float:
    different, same = shares(counts, "parc")
    area = float(same @ probability_below(different))
    return _factor(counts) * (area - 0.5)


def _factor(counts: Counts) -> float:
    """100 sqrt(12 w (1 - w) / (1 - sum_b r_b^3))."""
    total = counts.sum()
    untied = 1 - float(((counts.sum(axis=0) / total) ** 3).sum())
    if untied <= SAME_NUMBER:
        raise MetricError("parc is undefined: all pairs of images are equally correlated.")
    same = float(counts[1].sum() / total)
    return 100 * float(np.sqrt(12 * same * (1 - same) / untied))


def _derivatives(counts: Counts) -> Float64:
    """Derivatives of PARC by the number of pairs in each cell, [2, CELLS]."""
    different, same = shares(counts, "parc")
    area, factor, total = float(same @ probability_below(different)), _factor(counts), counts.sum()
    of_area = np.array([1 - probability_below(same) - area, probability_below(different) - area]) / counts.sum(axis=1)[:, None]
    share = counts[1].sum() / total
    of_share = np.array([[-share], [1 - share]]) / total
    tied = counts.sum(axis=0) / total
    cubes = float((tied**3).sum())
    of_cubes = 3 * (tied**2 - cubes) / total
    of_log_factor = (1 / share - 1 / (1 - share)) / 2 * of_share + of_cubes / (2 * (1 - cubes))
    return np.asarray(factor * (of_area + (area - 0.5) * of_log_factor))


@once_per_sample
def _correlated_pairs(sample: Sample) -> Pairs:
    """Pairs of the images by Pearson correlation."""
    require(len(sample), 3, "image", "parc")
    return _correlated(_finite(sample), sample)


def _correlated(rows: Float64, sample: Sample) -> Pairs:
    """Pairs of ``rows`` centred over dimensions and scaled to length 1, whose cosine is the Pearson correlation."""
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    spreads = np.linalg.norm(rows, axis=1)
    constant = np.flatnonzero(spreads <= SAME_NUMBER * lengths)
    if constant.size:
        raise MetricError(f"parc is undefined: all dimensions of image {constant[0]} are equal, so it correlates with no other.")
    return Pairs(rows / spreads[:, None], sample.known_labels)


def _finite(sample: Sample) -> Float64:
    """The images as a new float64 array."""
    images = np.array(sample.images, dtype=np.float64)
    check_finite(images, sample.images)
    return images


METRICS = (
    Metric(
        "parc",
        "rank correlation (x 100) of image dissimilarity with being of different classes",
        parc,
        parc_of,
        higher_is="images of the same class more alike than others",
        family=TRANSFERABILITY,
        range=(-100.0, 100.0),
        needs_text=False,
        min_images=3,
        min_classes=2,
        invariances=frozenset({IMAGE_ORDER, CLASS_ORDER, EMPTY_CLASS}),
        as_released=parc_as_released,
        released_note="embeddings reduced to 32 principal components and standardised in each dimension (PARC f=32)",
        standard_error=parc_standard_error,
        bootstrap=False,
        cost="O(N^2 D)",
    ),
)
