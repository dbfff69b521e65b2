"""The second moments of images by class, from which H-score, LogME, GBC, SFDA and NCTI are computed.

With n_c, m_c the number and mean of the images of class c, and m the mean of all: :class:`Scatter` holds the scatter within
classes W = sum_i (x_i - m_k(i)) (x_i - m_k(i))^T, :class:`Squares` its diagonal for each class by itself. All else is a sum of
positive terms, with no difference of large numbers anywhere: the scatter between classes
B = sum_c n_c (m_c - m) (m_c - m)^T, the scatter about the mean W + B, and X^T X = W + B + N m m^T.

Those of shards are merged with ``+`` (Chan, Golub, LeVeque 1979), so images may arrive in batches, files or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.blas import dsyrk

from metrics.statistics import Float64, Floats, Labels, MetricError, add_by_class, as_labels, as_matrix, float64_blocks

EPSILON = float(np.finfo(np.float64).eps)
Blocks = Callable[[], Iterator[tuple[Labels, Labels, Float64]]]  # which images, their labels, their values (may be overwritten)
TOO_LARGE = "image_embeddings are too large for their squares in float64; scale them down."


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """``class_counts`` n_c [C], ``class_means`` m_c [C, D], which are 0 for classes without images."""

    class_counts: Labels
    class_means: Float64

    @property
    def count(self) -> int:
        """N, the number of images."""
        return int(self.class_counts.sum())

    @property
    def present(self) -> Labels:
        """The classes that have images."""
        return np.flatnonzero(self.class_counts)

    @cached_property
    def class_sums(self) -> Float64:
        """The sums of the images of each class, [C, D]."""
        return self.class_counts[:, None] * self.class_means

    @cached_property
    def mean(self) -> Float64:
        """m, [D]."""
        return self.class_sums.sum(axis=0) / self.count

    @cached_property
    def class_offsets(self) -> Float64:
        """sqrt(n_c) (m_c - m) [C, D], of which B is the product with itself."""
        return np.sqrt(self.class_counts)[:, None] * (self.class_means - self.mean)

    def merged(self, other: ClassMeans) -> tuple[Labels, Float64, Float64]:
        """Counts and means of both shards, and the rows [C, D] whose product with themselves their scatters lack."""
        if self.class_means.shape != other.class_means.shape:
            shapes = f"{self.class_means.shape} and {other.class_means.shape}"
            raise MetricError(f"Cannot merge class means of shapes {shapes}; shards need the same classes.")
        counts = self.class_counts + other.class_counts
        share = other.class_counts / np.maximum(counts, 1)
        step = other.class_means - self.class_means
        return counts, self.class_means + share[:, None] * step, np.sqrt(self.class_counts * share)[:, None] * step


@dataclass(frozen=True, eq=False)
class Scatter(ClassMeans):
    """Class means with ``within`` W [D, D]."""

    within: Float64

    @cached_property
    def compact(self) -> Scatter:
        """The same without the classes that have no images."""
        return Scatter(self.class_counts[self.present], self.class_means[self.present], self.within)

    @cached_property
    def between(self) -> Float64:
        """B, [D, D]."""
        return self.class_offsets.T @ self.class_offsets

    @cached_property
    def centred(self) -> Float64:
        """The scatter about the mean of all images, W + B, [D, D]."""
        return self.within + self.between

    @cached_property
    def gram(self) -> Float64:
        """X^T X = W + B + N m m^T, [D, D]."""
        return self.centred + self.count * np.outer(self.mean, self.mean)

    def __add__(self, other: Scatter) -> Scatter:
        """The scatter of both shards; MetricError when their classes or dimensions differ."""
        counts, means, moved = self.merged(other)
        return Scatter(counts, means, self.within + other.within + moved.T @ moved)


@dataclass(frozen=True, eq=False)
class Squares(ClassMeans):
    """Class means with ``class_squares`` [C, D]: for each class and feature, the sum of squares about the class mean."""

    class_squares: Float64

    @cached_property
    def compact(self) -> Squares:
        """The same without the classes that have no images."""
        return Squares(self.class_counts[self.present], self.class_means[self.present], self.class_squares[self.present])

    def __add__(self, other: Squares) -> Squares:
        """The squares of both shards; MetricError when their classes or dimensions differ."""
        counts, means, moved = self.merged(other)
        return Squares(counts, means, self.class_squares + other.class_squares + moved**2)


def scatter(image_embeddings: ArrayLike, labels: ArrayLike, classes: int) -> Scatter:
    """The scatter of images [N, D], of any length, with labels [N] in ``range(classes)``.

    Two passes, block by block, so that the means are exact before anything is squared; O(N D^2) time, O(D^2 + C D) memory.
    Raises MetricError for arrays of other shapes, labels out of range and values that are not finite.

    >>> of = scatter([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]], [0, 0, 1], 2)
    >>> of.class_means.tolist(), of.within.tolist()
    ([[1.0, 1.0], [5.0, 5.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    blocks, means = _means_of(image_embeddings, labels, classes)
    return scatter_about(means, blocks)


def squares(image_embeddings: ArrayLike, labels: ArrayLike, classes: int) -> Squares:
    """The squares of images [N, D] by class, O(N D); arguments and errors as in :func:`scatter`."""
    blocks, means = _means_of(image_embeddings, labels, classes)
    return squares_about(means, blocks)


def _means_of(image_embeddings: ArrayLike, labels: ArrayLike, classes: int) -> tuple[Blocks, ClassMeans]:
    images = as_matrix("image_embeddings", image_embeddings)
    known = as_labels(labels, len(images), classes)
    return lambda: blocks_by_class(images, known), class_means(images, known, classes)


def class_means(images: Floats, labels: Labels, classes: int) -> ClassMeans:
    """Numbers and means of checked arrays; MetricError for values that are not finite."""
    means = class_means_of_blocks(lambda: blocks_by_class(images, labels), classes, images.shape[1])
    check_finite(means.class_means, images)
    return means


def class_means_of_blocks(blocks: Blocks, classes: int, dimensions: int) -> ClassMeans:
    """Numbers and means of what ``blocks()`` yields; rows of one class should follow each other."""
    counts, sums = np.zeros(classes, np.int64), np.zeros((classes, dimensions))
    for _, labels, block in blocks():
        counts += np.bincount(labels, minlength=classes)
        add_by_class(sums, block, labels)
    return ClassMeans(counts, sums / np.maximum(counts, 1)[:, None])


def scatter_about(means: ClassMeans, blocks: Blocks) -> Scatter:
    """The scatter of what ``blocks()`` yields about its class means."""
    dimensions = means.class_means.shape[1]
    upper = np.zeros((dimensions, dimensions), order="F")
    for _, labels, block in blocks():
        np.subtract(block, means.class_means[labels], out=block)
        upper = dsyrk(1.0, block.T, beta=1.0, c=upper, overwrite_c=True)  # adds to one triangle, in place
    within = np.triu(upper) + np.triu(upper, 1).T
    return Scatter(means.class_counts, means.class_means, _finite(within))


def squares_about(means: ClassMeans, blocks: Blocks) -> Squares:
    """The squares of what ``blocks()`` yields about its class means; rows of one class should follow each other."""
    sums = np.zeros_like(means.class_means)
    for _, labels, block in blocks():
        np.subtract(block, means.class_means[labels], out=block)
        add_by_class(sums, np.square(block, out=block), labels)
    return Squares(means.class_counts, means.class_means, _finite(sums))


def blocks_by_class(images: Floats, labels: Labels) -> Iterator[tuple[Labels, Labels, Float64]]:
    """The images in the order of their classes, block by block: which they are, their labels, their values as float64."""
    order = np.argsort(labels, kind="stable")
    for rows, block in float64_blocks(images, order):
        chosen = order[rows] if isinstance(rows, slice) else rows
        yield chosen, labels[chosen], block


def check_finite(sums: Float64, images: Floats) -> None:
    """MetricError that names the row, when sums over ``images`` are not finite."""
    if np.isfinite(sums).all():
        return
    for rows, block in float64_blocks(images):
        wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if wrong.size and isinstance(rows, slice):
            raise MetricError(f"Row {rows.start + wrong[0]} of image_embeddings has a value that is not finite.")
    raise MetricError(TOO_LARGE)


def _finite(sums: Float64) -> Float64:
    if not np.isfinite(sums).all():
        raise MetricError(TOO_LARGE)
    return sums


def require_classes(of: ClassMeans, measure: str, least: int = 2) -> None:
    """MetricError unless there is an image, and at least ``least`` classes have some."""
    if not of.count:
        raise MetricError(f"{measure} is undefined for 0 images; it needs at least {least}.")
    if len(of.present) < least:
        raise MetricError(f"{measure} is undefined for 1 class with images; it needs at least {least}.")
