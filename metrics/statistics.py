"""The sums that every measure of embeddings is made of: one pass over the images, float64, mergeable.

All closed forms need only these of N unit rows x_i with labels k(i) and C unit texts t_k: N, sum |x_i|^2, and for each
class the number and the sum of its images. From the class sums follow the two others that the formulas name:
s = sum_i x_i, and sum_i x_i.t_k(i) = sum_k (class sum k).t_k.

Sums of shards add up to the sums of the whole (``+``), so images may arrive in batches, files or processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]
Labels = NDArray[np.int64]

UNIT_TOLERANCE = 1e-3  # of a row's length: wide enough for float16 storage, far too narrow for unnormalised rows
BLOCK_VALUES = 1 << 18  # float64 numbers converted at once (2 MB): stays in the cache, and no float64 copy of the whole


class MetricError(ValueError):
    """Input of which a measure is undefined, told in one sentence."""


@dataclass(frozen=True, eq=False)
class ImageSums:
    """Sums over images: ``count`` N, ``squared_length`` sum |x_i|^2, ``class_counts`` [C], ``class_sums`` [C, D]."""

    count: int
    squared_length: float
    class_counts: Labels
    class_sums: Float64

    @cached_property
    def total(self) -> Float64:
        """s = sum of all images, [D]."""
        return self.class_sums.sum(axis=0)

    def __add__(self, other: ImageSums) -> ImageSums:
        """The sums over both shards; MetricError when their classes or dimensions differ."""
        if self.class_sums.shape != other.class_sums.shape:
            raise MetricError(
                f"Cannot add sums of shapes {self.class_sums.shape} and {other.class_sums.shape}; shards need the same classes."
            )
        return ImageSums(
            self.count + other.count,
            self.squared_length + other.squared_length,
            self.class_counts + other.class_counts,
            self.class_sums + other.class_sums,
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """All that the closed forms need: the sums over the images, and the texts [C, D] in float64."""

    images: ImageSums
    texts: Float64

    @cached_property
    def correct_sum(self) -> float:
        """sum_i x_i.t_k(i): every image with the text of its own class."""
        if self.images.class_sums.shape != self.texts.shape:
            raise MetricError("This measure needs the labels of the images.")
        return float(np.vdot(self.images.class_sums, self.texts))

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both shards; MetricError unless they were made with the same texts."""
        if not np.array_equal(self.texts, other.texts):
            raise MetricError("Cannot merge statistics that were made with different text embeddings.")
        return Statistics(self.images + other.images, self.texts)


def statistics(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike | None = None) -> Statistics:
    """One pass over images [N, D], texts [C, D] and labels [N]; O((N + C) D) time, O(C D) memory.

    Without labels only the measures that need none can be computed. Raises MetricError for arrays that are not
    matrices of finite unit rows of one dimension, and for labels outside ``range(C)``.

    >>> shards = [statistics([[1.0, 0.0]], [[1.0, 0.0]], [0]), statistics([[0.0, 1.0]], [[1.0, 0.0]], [0])]
    >>> (shards[0] + shards[1]).images.total
    array([1., 1.])
    """
    texts = unit_rows("text_embeddings", text_embeddings)
    images = as_matrix("image_embeddings", image_embeddings)
    if images.shape[1] != texts.shape[1]:
        raise MetricError(
            f"image_embeddings have {images.shape[1]} dimensions but text_embeddings {texts.shape[1]}; they must be of one model."
        )
    return Statistics(image_sums(images, labels, 1 if labels is None else len(texts)), texts)


def image_sums(image_embeddings: ArrayLike, labels: ArrayLike | None = None, classes: int = 1) -> ImageSums:
    """The sums over images [N, D] with labels [N] in ``range(classes)``; without labels all are of one class."""
    images = as_matrix("image_embeddings", image_embeddings)
    labels = as_labels(np.zeros(len(images), np.int64) if labels is None else labels, len(images), classes)
    order = None if classes == 1 else np.argsort(labels, kind="stable")
    class_sums = np.zeros((classes, images.shape[1]))
    squared_length = 0.0
    for rows, block, squares in unit_blocks("image_embeddings", images, order):
        squared_length += float(squares.sum())
        add_by_class(class_sums, block, labels[rows])
    return ImageSums(len(images), squared_length, np.bincount(labels, minlength=classes), class_sums)


def mean_over_pairs(total: Float64, squared_length: float, count: int) -> float:
    """Mean of x_i.x_j over the pairs i != j: (|s|^2 - sum |x_i|^2) / (N (N - 1)).

    Subtracts the true squared lengths, not N, so that rows that are unit only to storage precision are no error.
    """
    return (float(total @ total) - squared_length) / (count * (count - 1))


def require(count: int, least: int, what: str, measure: str) -> None:
    """MetricError unless there are at least ``least`` images or texts."""
    if count < least:
        raise MetricError(f"{measure} is undefined for {count} {what}{'' if count == 1 else 's'}; it needs at least {least}.")


def unit_rows(name: str, values: ArrayLike) -> Float64:
    """The matrix ``values`` as a new float64 array; MetricError unless its rows are finite and of length 1."""
    matrix = as_matrix(name, values)
    rows_of = np.empty(matrix.shape)
    for rows, block, _ in unit_blocks(name, matrix):
        rows_of[rows] = block
    return rows_of


def as_matrix(name: str, values: ArrayLike) -> Floats:
    """``values`` as a two-dimensional array of floats, without a copy; MetricError when it is none."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise MetricError(f"{name} must be a matrix of floats, one unit row each, not {matrix.dtype} of shape {matrix.shape}.")
    return matrix


def as_labels(values: ArrayLike, count: int, classes: int) -> Labels:
    """``values`` as int64 labels of ``count`` images; MetricError when they are not whole numbers in ``range(classes)``."""
    labels = np.asarray(values)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise MetricError(f"labels must be whole numbers, not {labels.dtype}.")
    if labels.shape != (count,):
        raise MetricError(f"labels must have shape ({count},), one for each image, not {labels.shape}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise MetricError(f"The label {labels[wrong[0]]} of image {wrong[0]} is not in 0..{classes - 1}; there are {classes} classes.")
    return labels.astype(np.int64, copy=False)


def float64_blocks(matrix: Floats, order: Labels | None = None) -> Iterator[tuple[slice | Labels, Float64]]:
    """The rows, in ``order`` if given: which they are, and their values as float64.

    Every block is the same piece of memory, which the caller may write to: a new one each time costs more than the sums.
    """
    size = max(1, BLOCK_VALUES // max(1, matrix.shape[1]))
    count = len(matrix) if order is None else len(order)
    memory = np.empty((min(size, count), matrix.shape[1]))
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count)) if order is None else order[start : start + size]
        block = memory[: min(size, count - start)]
        block[:] = matrix[rows]
        yield rows, block


def unit_blocks(name: str, matrix: Floats, order: Labels | None = None) -> Iterator[tuple[slice | Labels, Float64, Float64]]:
    """:func:`float64_blocks` with the squared lengths of the rows, which are checked to be 1."""
    for rows, block in float64_blocks(matrix, order):
        squares = np.einsum("ij,ij->i", block, block)
        _check_unit(name, np.sqrt(squares), np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows)
        yield rows, block, squares


def _check_unit(name: str, lengths: Float64, numbers: Labels) -> None:
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # also true for NaN
    if not wrong.size:
        return
    row, length = numbers[wrong[0]], lengths[wrong[0]]
    if not np.isfinite(length):
        raise MetricError(f"Row {row} of {name} has a value that is not finite.")
    raise MetricError(f"Row {row} of {name} has length {length:.6g}; every row must be a unit vector (to {UNIT_TOLERANCE:g}).")


def add_by_class(class_sums: Float64, block: Float64, labels: Labels) -> None:
    """Add rows that are sorted by class: one sum per run of equal labels (np.add.reduceat is ten times slower here)."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(labels)]):
        class_sums[labels[start]] += block[start:end].sum(axis=0)
