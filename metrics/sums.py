"""The measures that need only sums over images, computed from them: images may come in batches and be forgotten.

What is summed, in four steps of size: by class the number and the sum of its images, C D numbers; the squares about its mean by
feature, C D more; the scatter within all classes, D^2; that of each class by itself, C D^2. :mod:`engine.streaming` collects
them. The other measures look at every image again once they know the sums (SFDA, NCTI, LEEP, zero-shot accuracy), or at pairs
(overlap, PARC, nearest neighbours), or fit a model (linear probe, NLEEP, EMMS): they need the embeddings themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from metrics.alignment import alignment_of
from metrics.gap import gap_of
from metrics.gbc import gbc_diagonal_of, gbc_spherical_of
from metrics.hscore import hscore_of, ledoit_wolf_shrinkage
from metrics.iimm import iimm_of, image_image_of, wrong_label_of
from metrics.linear_algebra import half_log_determinant_of_one_plus, shrunk, trace_of_solution
from metrics.logme import mean_evidence, regression_from_scatter
from metrics.sample import Sample
from metrics.scatter import Scatter, Squares, require_classes
from metrics.statistics import Float64, Floats, Statistics, unit_blocks
from metrics.text_text import text_text_of
from metrics.transrate import EPSILON
from metrics.uniformity import uniformity_text_of
from metrics.variance import between_within_ratio_of, total_variance_of

SUMS, SQUARES, SCATTER, SCATTERS = 1, 2, 3, 4  # up to which step a measure needs them


class Excess(NamedTuple):
    """How far squared lengths are off 1, e_i = |x_i|^2 - 1: sum e_i, sum e_i^2, and sum e_i x_i [D]."""

    total: float
    squared: float
    of_images: Float64

    def merged(self, other: Excess) -> Excess:
        """The excess of both shards."""
        return Excess(self.total + other.total, self.squared + other.squared, self.of_images + other.of_images)


@dataclass(frozen=True, eq=False)
class Sums:
    """What the steps add to one another; ``scatters`` [C, D, D] is the scatter within each class."""

    statistics: Statistics
    known_squares: Squares | None = None
    known_scatter: Scatter | None = None
    excess: Excess | None = None
    scatters: Float64 | None = None

    @property
    def squares(self) -> Squares:
        """The squares by class and feature."""
        assert self.known_squares is not None
        return self.known_squares

    @property
    def scatter(self) -> Scatter:
        """The scatter within all classes."""
        assert self.known_scatter is not None
        return self.known_scatter

    def __add__(self, other: Sums) -> Sums:
        """The sums of both shards, up to the scatter within all classes, where both have it."""
        known = self.statistics + other.statistics
        if self.known_squares is None or other.known_squares is None:
            return Sums(known)
        squares = self.known_squares + other.known_squares
        if self.known_scatter is None or other.known_scatter is None or self.excess is None or other.excess is None:
            return Sums(known, squares)
        return Sums(known, squares, self.known_scatter + other.known_scatter, self.excess.merged(other.excess))

    def fourth_powers(self) -> float:
        """sum_i |x_i - m|^4, m the mean of all.

        With |x_i - m|^2 = (1 + |m|^2 - 2 m.x_i) + e_i, S the scatter about m and v = 1 - |m|^2 = (trace S - sum e_i) / N, it is
        N v^2 + 4 m.S m + 2 (1 + |m|^2) sum e_i - 4 m.(sum e_i x_i) + sum e_i^2: no difference of large numbers.
        """
        of, excess = self.scatter, self.excess
        assert excess is not None
        mean, spread = of.mean, (float(np.trace(of.centred)) - excess.total) / of.count
        correction = 2 * (1 + float(mean @ mean)) * excess.total - 4 * float(mean @ excess.of_images) + excess.squared
        return of.count * spread**2 + 4 * float(mean @ of.centred @ mean) + correction


def sums_of(sample: Sample, step: int) -> Sums:
    """The sums over the images of a sample that measures need up to ``step``, at most the scatter within all classes."""
    if step == SUMS:
        return Sums(sample.statistics)
    if step == SQUARES:
        return Sums(sample.statistics, sample.squares)
    return Sums(sample.statistics, sample.squares, sample.scatter, excess_of(sample.images))


def excess_of(images: Floats) -> Excess:
    """The excess of unit rows [N, D]; MetricError unless they are unit."""
    found = Excess(0.0, 0.0, np.zeros(images.shape[1]))
    for _, block, squares in unit_blocks("image_embeddings", images):
        over = squares - 1
        found = found.merged(Excess(float(over.sum()), float(np.square(over).sum()), over @ block))
    return found


def hscore_regularized_of_sums(of: Sums) -> float:
    """:func:`metrics.hscore.hscore_regularized` from sums."""
    moments = of.scatter
    require_classes(moments, "hscore_regularized")
    covariance = moments.centred / moments.count
    shrinkage = ledoit_wolf_shrinkage(covariance, of.fourth_powers(), moments.count)
    trace = trace_of_solution(shrunk(covariance, shrinkage), moments.class_offsets, moments.count)
    return (1 - shrinkage) * trace / (moments.count - 1)


def logme_of_sums(of: Sums) -> float:
    """:func:`metrics.logme.logme` from sums; with fewer images than dimensions less exact than from the images."""
    require_classes(of.scatter, "logme")
    return mean_evidence(regression_from_scatter(of.scatter))


def transrate_of_sums(of: Sums) -> float:
    """:func:`metrics.transrate.transrate` from the second moments of each class.

    Of the images of class c less the mean m of all they are W_c + n_c (m_c - m) (m_c - m)^T.
    """
    moments, scatters = of.scatter, of.scatters
    assert scatters is not None
    require_classes(moments, "transrate")
    whole = half_log_determinant_of_one_plus(moments.centred / (moments.count * EPSILON))
    saved = 0.0
    for label in moments.present:
        count, offset = moments.class_counts[label], moments.class_offsets[label]
        rate = half_log_determinant_of_one_plus((scatters[label] + np.outer(offset, offset)) / (count * EPSILON))
        saved += float(count) / moments.count * rate
    return whole - saved


class OfSums(NamedTuple):
    """Up to which step a measure needs sums, and the measure of them."""

    step: int
    function: Callable[[Sums], float]


OF_SUMS: dict[str, OfSums] = {
    "iimm": OfSums(SUMS, lambda of: iimm_of(of.statistics)),
    "image_image": OfSums(SUMS, lambda of: image_image_of(of.statistics.images)),
    "wrong_label": OfSums(SUMS, lambda of: wrong_label_of(of.statistics)),
    "alignment": OfSums(SUMS, lambda of: alignment_of(of.statistics)),
    "text_text": OfSums(SUMS, lambda of: text_text_of(of.statistics.texts)),
    "gap": OfSums(SUMS, lambda of: gap_of(of.statistics)),
    "uniformity_text": OfSums(SUMS, lambda of: uniformity_text_of(of.statistics)),
    "total_variance": OfSums(SUMS, lambda of: total_variance_of(of.statistics.images)),
    "between_within_ratio": OfSums(SUMS, lambda of: between_within_ratio_of(of.statistics.images)),
    "hscore": OfSums(SCATTER, lambda of: hscore_of(of.scatter)),
    "hscore_regularized": OfSums(SCATTER, hscore_regularized_of_sums),
    "logme": OfSums(SCATTER, logme_of_sums),
    "gbc_spherical": OfSums(SQUARES, lambda of: gbc_spherical_of(of.squares)),
    "gbc_diagonal": OfSums(SQUARES, lambda of: gbc_diagonal_of(of.squares)),
    "transrate": OfSums(SCATTERS, transrate_of_sums),
}
