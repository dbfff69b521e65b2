"""Histograms of cosines by kind of pair, and how far two of them coincide; made by :mod:`inversion.misalignment`.

Kinds of pairs are named ``A_B_RELATION``:

    A, B        image | text | oti (inverted images, on the side of texts) | ovi (inverted texts, on the side of images)
    RELATION    same_item         an inversion and the very item that it inverts
                same_class        two items of one class; an item and the text (or image) of its class
                different_class   all others; ``all`` instead of these two where no labels are known

No item is paired with itself, every pair counts once, and an inversion meets its own item only in ``same_item``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.pair_counts import BINS  # those of the measure ``overlap``, so that the numbers compare

EDGES = np.linspace(-1, 1, BINS + 1)
SAME_ITEM, SAME, DIFFERENT, ALL = "same_item", "same_class", "different_class", "all"


@dataclass(frozen=True, eq=False)
class Histogram:
    """Cosines of one kind of pair: ``counts`` int64 [BINS] over equal bins of [-1, 1], mean and standard deviation of the cosines.

    Counts are exact; the moments are those of the float32 cosines, added up in float64, not of the bins.
    """

    counts: NDArray[np.int64]
    mean: float
    std: float

    @property
    def n(self) -> int:
        """The number of pairs."""
        return int(self.counts.sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of pairs in each bin, p_b; they sum to 1."""
        return self.counts / self.n

    def overlap(self, other: Histogram) -> float:
        """Overlap coefficient sum_b min(p_b, q_b) in [0, 1]: 1 where both are alike, 0 where no bin has both.

        For two images of the same and of different classes this is the measure ``overlap`` (Kravets and Namboodiri, BMVC 2024) but for
        cosines within 1e-6 below an edge, which are here in the bin above.
        """
        return float(np.minimum(self.shares, other.shares).sum())

    def intersection_over_union(self, other: Histogram) -> float:
        """sum_b min(p_b, q_b) / sum_b max(p_b, q_b) in [0, 1], which is overlap / (2 - overlap)."""
        return float(np.minimum(self.shares, other.shares).sum() / np.maximum(self.shares, other.shares).sum())

    def as_record(self) -> dict[str, Any]:
        """For JSON: n, mean, std, and edges and counts without the empty ends."""
        used = np.flatnonzero(self.counts)
        first, last = int(used[0]), int(used[-1]) + 1
        edges = EDGES[first : last + 1].round(6).tolist()
        return {"n": self.n, "mean": self.mean, "std": self.std, "edges": edges, "counts": self.counts[first:last].tolist()}


@dataclass(frozen=True, eq=False)
class Similarities:
    """Histograms by the name of the pairs (kinds without a pair are left out), and distances between the means of two sides.

    ``gaps[A_B]`` is |mean A - mean B|, of unit vectors that are not normalised again: the modality gap of Liang et al. (NeurIPS 2022)
    for ``image_text``; ``oti_image`` and ``oti_text`` tell on which side the inversions lie.
    """

    histograms: Mapping[str, Histogram]
    gaps: Mapping[str, float]

    @property
    def sides(self) -> list[str]:
        """The kinds A_B of which there are pairs of the same class and of different classes."""
        names = [name.removesuffix(f"_{SAME}") for name in self.histograms if name.endswith(f"_{SAME}")]
        return [name for name in names if f"{name}_{DIFFERENT}" in self.histograms]

    def of_classes(self, side: str) -> tuple[Histogram, Histogram]:
        """The histograms of A_B: pairs of the same class, pairs of different classes."""
        return self.histograms[f"{side}_{SAME}"], self.histograms[f"{side}_{DIFFERENT}"]

    def overlap(self, side: str) -> float:
        """How far same-class and different-class pairs of A_B coincide; see :meth:`Histogram.overlap`."""
        same, different = self.of_classes(side)
        return same.overlap(different)

    def as_record(self) -> dict[str, Any]:
        """For JSON: all histograms, overlap and intersection over union of each side, gaps."""
        pairs = {side: self.of_classes(side) for side in self.sides}
        return {
            "histograms": {name: of.as_record() for name, of in self.histograms.items()},
            "overlap": {side: same.overlap(different) for side, (same, different) in pairs.items()},
            "intersection_over_union": {side: same.intersection_over_union(different) for side, (same, different) in pairs.items()},
            "gaps": dict(self.gaps),
        }
