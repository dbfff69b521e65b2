"""How often each similarity occurs among pairs of images of the same class and of different classes.

All measures of pairs (the overlap family, PARC) are functions of a table of counts [2, B]: row 0 for pairs of different
classes, row 1 for pairs of the same class, columns for similarities in ascending order. Every pair i < j counts once and
no image is paired with itself. The Gram matrix is made in tiles, of which one is held at a time: O(N^2 D) time, O(N D)
memory.

Similarities are computed in float64. Those that are equal come out of a matrix product with different last bits, so they
are rounded (to 2^-40) before ties are looked for, and 0, +-0.01, +-0.02, ... lie well inside the bin above them: neither the
size of the tiles nor the order of the images decides where a pair is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.once import once_per_sample
from metrics.sample import Sample
from metrics.statistics import Float64, Labels, MetricError, unit_rows

Counts = NDArray[np.int64]

BINS = 200  # of the histogram overlap, over [-1, 1]
CELLS = BINS * 4096  # finer bins from which ranks are taken: 2.4e-6 wide
EXACT_IMAGES = 2048  # up to here all similarities fit into 16 MB and are ranked exactly
TILE = 1024  # images on a side of a tile: 8 MB, and the matrix product at full speed
ONTO_GRID = 2.0**40
INSIDE = 1e-5  # of a cell (2.4e-11 of cosine): far above rounding, far below the width


class Tile(NamedTuple):
    """A part of the Gram matrix on or above its diagonal, and which of its pairs are of the same class."""

    top: slice
    left: slice
    similarities: Float64
    same: NDArray[np.bool_]

    @property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | tuple[slice, slice]:
        """Where its pairs i < j are."""
        return np.triu_indices(len(self.similarities), 1) if self.top == self.left else (slice(None), slice(None))


class Pairs:
    """All pairs of ``rows`` [N, D], unit vectors in float64, with ``labels`` [N]; what is asked for is computed once.

    >>> of = Pairs(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 0, 1]))
    >>> of.values.tolist()
    [[1, 1], [1, 0]]
    >>> np.flatnonzero(of.cells[0]).tolist()
    [409600, 819199]
    """

    def __init__(self, rows: Float64, labels: Labels) -> None:
        self.rows, self.labels = rows, labels

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.rows)

    @cached_property
    def cells(self) -> Counts:
        """Counts [2, CELLS] over equal cells of [-1, 1]; similarities beyond (rows are unit only as stored) in the last.

        A similarity s is in cell floor((s + 1) CELLS / 2 + 1e-5).
        """
        counts = np.zeros(2 * CELLS, np.int64)
        for tile in self._tiles():
            counts += np.bincount(_cells(tile)[tile.pairs].ravel(), minlength=2 * CELLS)
        return counts.reshape(2, CELLS)

    @cached_property
    def values(self) -> Counts:
        """Counts [2, U] over the U distinct similarities, rounded to 2^-40; holds all N (N - 1) / 2 of them in memory."""
        if len(self) < 2:
            return np.zeros((2, 0), np.int64)
        tiles = [(tile.similarities[tile.pairs].ravel(), tile.same[tile.pairs].ravel()) for tile in self._tiles()]
        similarities, same = (np.concatenate(part) for part in zip(*tiles, strict=True))
        values, place = np.unique(np.rint(similarities * ONTO_GRID), return_inverse=True)
        return np.bincount(place + len(values) * same, minlength=2 * len(values)).reshape(2, -1)

    @property
    def ranked(self) -> Counts:
        """Counts of the similarities themselves for at most EXACT_IMAGES images, of their cells for more."""
        return self.values if len(self) <= EXACT_IMAGES else self.cells

    def sums_over_partners(self, tables: Float64) -> Float64:
        """For each image i, sum_j tables[:, same_ij, cell_ij] over j != i: tables [T, 2, CELLS] to sums [T, N].

        With the derivatives of a measure by the counts as table, this is its derivative by the weight of each image.
        """
        sums = np.zeros((len(tables), len(self)))
        for tile in self._tiles():
            cells = _cells(tile)
            for table, total in zip(tables.reshape(len(tables), -1), sums, strict=True):
                found = table[cells]
                if tile.top == tile.left:
                    np.fill_diagonal(found, 0)
                else:
                    total[tile.left] += found.sum(axis=0)
                total[tile.top] += found.sum(axis=1)
        return sums

    def _tiles(self) -> Iterator[Tile]:
        parts = [slice(start, start + TILE) for start in range(0, len(self), TILE)]
        for number, top in enumerate(parts):
            for left in parts[number:]:
                same = self.labels[top, None] == self.labels[left]
                yield Tile(top, left, self.rows[top] @ self.rows[left].T, same)


@once_per_sample
def pairs_of(sample: Sample) -> Pairs:
    """The pairs of the images of a sample, by cosine; all measures of them share one pass."""
    return Pairs(unit_rows("image_embeddings", sample.images), sample.known_labels)


def shares(counts: Counts, measure: str) -> tuple[Float64, Float64]:
    """The two rows as shares of their pairs: of different classes, of the same class; MetricError if there is none."""
    different, same = counts.sum(axis=1)
    if not different:
        raise MetricError(f"{measure} is undefined: no two images are of different classes.")
    if not same:
        raise MetricError(f"{measure} is undefined: no two images are of the same class.")
    return counts[0] / different, counts[1] / same


def probability_below(shares: Float64) -> Float64:
    """For each column P(less) + P(equal) / 2.

    >>> probability_below(np.array([0.5, 0.25, 0.25]))
    array([0.25 , 0.625, 0.875])
    """
    return np.cumsum(shares) - shares / 2


def _cells(tile: Tile) -> Counts:
    """The cell of each pair, counted on from CELLS for pairs of the same class; overwrites the similarities."""
    position = tile.similarities
    position += 1
    position *= CELLS / 2
    position += INSIDE
    cells = np.clip(position, 0, CELLS - 1, out=position).astype(np.int64)
    cells += CELLS * tile.same
    return cells
