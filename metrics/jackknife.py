"""Closed forms of the delete-one-image jackknife: each measure without image i, for all i at once, from sums.

With theta_i the measure of the N - 1 other images (the texts stay as they are),

    standard error = sqrt((N - 1) / N sum_i (theta_i - mean of theta)^2)

(Efron and Stein, "The jackknife estimate of variance", 1981). Of a mean over images this is the usual sd / sqrt(N). Taking an
image away changes each sum by one term, so one more pass over the images gives all theta_i: O((N + C) D), never N times the
measure. Letters: s = sum_i x_i, q_i = |x_i|^2, Q = sum_i q_i; t = sum_k t_k; n_c and s_c the number and sum of class c.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metrics.alignment import alignment_of
from metrics.iimm import wrong_label_of
from metrics.sample import Sample
from metrics.statistics import Float64, ImageSums, MetricError, require, unit_blocks
from metrics.variance import ROUNDING

LeftOut = Callable[[Sample], Float64]
Rows = slice  # which images a block holds


def jackknife_error(left_out: Float64) -> float:
    """The standard error from the values [N] of a measure without one image each.

    >>> round(jackknife_error(np.array([2.5, 2.0, 1.5])), 6)  # of the mean of 1, 2, 3
    0.57735
    """
    count = len(left_out)
    return float(np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum()))


class JackknifeError:
    """:func:`jackknife_error` of values that come a few at a time; none of them is kept (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, left_out: Float64) -> None:
        """Further values, possibly none."""
        if not len(left_out):
            return
        total, mean = self.count + len(left_out), float(left_out.mean())
        share, step = len(left_out) / total, mean - self.mean
        self.squares += float(np.square(left_out - mean).sum()) + self.count * share * step**2
        self.count, self.mean = total, self.mean + share * step

    @property
    def value(self) -> float:
        """That of all values so far."""
        return float(np.sqrt((self.count - 1) / self.count * self.squares))


def without_image_image(sample: Sample) -> Float64:
    """(|s - x_i|^2 - (Q - q_i)) / ((N - 1) (N - 2)) for each image; needs three images."""
    require(sample.image_sums.count, 3, "image", "the standard error of image_image")
    of, count = sample.image_sums, sample.image_sums.count
    whole = float(of.total @ of.total) - of.squared_length
    changes = _by_image(sample, lambda block, squares, rows: 2 * (squares - block @ of.total))
    return (whole + changes) / ((count - 1) * (count - 2))


def without_wrong_label(sample: Sample) -> Float64:
    """The mean of b_j = (x_j.t - x_j.t_k(j)) / (C - 1) over j != i, for each image; needs two images."""
    require(sample.image_sums.count, 2, "image", "the standard error of wrong_label")
    texts = sample.statistics.texts
    require(len(texts), 2, "class text", "wrong_label")
    total, labels = texts.sum(axis=0), sample.known_labels
    wrong = _by_image(sample, lambda block, squares, rows: block @ total - _own(block, texts[labels[rows]]))
    return _means_of_others(wrong / (len(texts) - 1), wrong_label_of(sample.statistics), sample)


def without_iimm(sample: Sample) -> Float64:
    """The mean of both terms without each image; needs three images."""
    require(sample.image_sums.count, 3, "image", "the standard error of iimm")
    return (without_image_image(sample) + without_wrong_label(sample)) / 2


def without_alignment(sample: Sample) -> Float64:
    """The mean of x_j.t_k(j) over j != i, for each image; needs two images."""
    require(sample.image_sums.count, 2, "image", "the standard error of alignment")
    texts, labels = sample.statistics.texts, sample.known_labels
    own = _by_image(sample, lambda block, squares, rows: _own(block, texts[labels[rows]]))
    return _means_of_others(own, alignment_of(sample.statistics), sample)


def without_gap(sample: Sample) -> Float64:
    """|(s - x_i) / (N - 1) - t / C| for each image; needs two images."""
    require(sample.image_sums.count, 2, "image", "the standard error of gap")
    others = sample.image_sums.count - 1
    difference = sample.statistics.images.total / others - sample.statistics.texts.mean(axis=0)
    return _by_image(sample, lambda block, squares, rows: np.sqrt(_lengths(difference - block / others)))


def without_uniformity_text(sample: Sample) -> Float64:
    """mean_k t_k.(s - s_k) / (N - n_k) without each image i.

    For the classes k that i is not of, t_k.x_i leaves the sum and 1 leaves N - n_k; for its own class nothing changes. Undefined
    when the only image of all other classes is the one taken away.
    """
    of, texts, labels = sample.statistics.images, sample.statistics.texts, sample.known_labels
    others = of.count - of.class_counts
    if (others < 2).any():
        raise MetricError("the standard error of uniformity_text is undefined when all images but one are of one class.")
    sums = texts @ of.total - np.einsum("kd,kd->k", texts, of.class_sums)
    weighted = texts / (others - 1)[:, None]
    unchanged = sums / others - sums / (others - 1)

    def changes(block: Float64, squares: Float64, rows: Rows) -> Float64:
        return unchanged[labels[rows]] - block @ weighted.sum(axis=0) + _own(block, weighted[labels[rows]])

    return (float((sums / (others - 1)).sum()) + _by_image(sample, changes)) / len(texts)


def without_total_variance(sample: Sample) -> Float64:
    """(Q - q_i) / (N - 1) - |s - x_i|^2 / (N - 1)^2 for each image; needs two images."""
    require(sample.image_sums.count, 2, "image", "the standard error of total_variance")
    of, others = sample.image_sums, sample.image_sums.count - 1
    return _by_image(sample, lambda block, squares, rows: (of.squared_length - squares) / others - _lengths(of.total - block) / others**2)


def without_between_within_ratio(sample: Sample) -> Float64:
    """(P_i - |s - x_i|^2 / (N - 1)) / (Q - q_i - P_i) for each image, with P = sum_c |s_c|^2 / n_c; needs three images.

    Taking image i of class c away changes P by |s_c - x_i|^2 / (n_c - 1) - |s_c|^2 / n_c.
    """
    require(sample.image_sums.count, 3, "image", "the standard error of between_within_ratio")
    of, labels = sample.image_sums, sample.known_labels
    own_parts = np.square(of.class_sums).sum(axis=1) / np.maximum(of.class_counts, 1)

    def ratios(block: Float64, squares: Float64, rows: Rows) -> Float64:
        own = labels[rows]
        parts = own_parts.sum() - own_parts[own] + _lengths(of.class_sums[own] - block) / np.maximum(of.class_counts[own] - 1, 1)
        return _ratios(parts, _lengths(of.total - block) / (of.count - 1), of.squared_length - squares, of)

    return _by_image(sample, ratios)


LEFT_OUT: dict[str, LeftOut] = {
    "iimm": without_iimm,
    "image_image": without_image_image,
    "wrong_label": without_wrong_label,
    "alignment": without_alignment,
    "gap": without_gap,
    "uniformity_text": without_uniformity_text,
    "total_variance": without_total_variance,
    "between_within_ratio": without_between_within_ratio,
}


def _by_image(sample: Sample, value: Callable[[Float64, Float64, Rows], Float64]) -> Float64:
    """``value(block, squared lengths, which rows)`` of every block of images, together [N]."""
    values = np.empty(len(sample))
    for rows, block, squares in unit_blocks("image_embeddings", sample.images):
        assert isinstance(rows, slice)
        values[rows] = value(block, squares, rows)
    return values


def _means_of_others(values: Float64, mean: float, sample: Sample) -> Float64:
    """Of a mean over images, that of the others than each."""
    count = sample.image_sums.count
    return (count * mean - values) / (count - 1)


def _own(block: Float64, of_class: Float64) -> Float64:
    """The product of each row with the row of its class."""
    return np.einsum("nd,nd->n", block, of_class)


def _lengths(rows: Float64) -> Float64:
    """The squared length of each row."""
    return np.einsum("nd,nd->n", rows, rows)


def _ratios(parts: Float64, whole: Float64, squares: Float64, of: ImageSums) -> Float64:
    """(P - T) / (Q - P), where both differences are 0 when they are within rounding of it."""
    within, between = squares - parts, np.maximum(parts - whole, 0.0)
    if (within <= ROUNDING * of.squared_length).any():
        raise MetricError("the standard error of between_within_ratio is undefined: without one image, in each class all are equal.")
    return between / within
