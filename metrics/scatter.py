"""The second moments of images by class: one structure from which H-score, LogME, GBC, SFDA and NCTI are computed.

With n_c, m_c the number and mean of the images of class c, and m the mean of all, it holds n_c, m_c, the scatter within
classes W = sum_i (x_i - m_k(i)) (x_i - m_k(i))^T, and for each class and dimension the sum of squares about m_c. All else is
a sum of positive terms, with no difference of large numbers anywhere: the scatter between classes
B = sum_c n_c (m_c - m) (m_c - m)^T, the scatter about the mean W + B, and X^T X = W + B + N m m^T.

Scatters of shards are merged with ``+`` (Chan, Golub, LeVeque 1979), so images may arrive in batches, files or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from metrics.statistics import Float64, Floats, Labels, MetricError, add_by_class, as_labels, as_matrix, float64_blocks

EPSILON = float(np.finfo(np.float64).eps)
Blocks = Callable[[], Iterator[tuple[Labels, Labels, Float64]]]  # which images, their labels, their values (may be overwritten)


@dataclass(frozen=True, eq=False)
class Scatter:
    """``class_counts`` n_c [C], ``class_means`` m_c [C, D] (0 without images), ``class_squares`` [C, D], ``within`` W [D, D]."""

    class_counts: Labels
    class_means: Float64
    class_squares: Float64
    within: Float64

    @property
    def count(self) -> int:
        """N, the number of images."""
        return int(self.class_counts.sum())

    @property
    def present(self) -> Labels:
        """The classes that have images."""
        return np.flatnonzero(self.class_counts)

    @cached_property
    def compact(self) -> Scatter:
        """The same without the classes that have no images."""
        chosen = self.present
        return Scatter(self.class_counts[chosen], self.class_means[chosen], self.class_squares[chosen], self.within)

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
        if self.class_means.shape != other.class_means.shape:
            shapes = f"{self.class_means.shape} and {other.class_means.shape}"
            raise MetricError(f"Cannot add scatters with class means of shapes {shapes}; shards need the same classes.")
        counts = self.class_counts + other.class_counts
        share = other.class_counts / np.maximum(counts, 1)
        step = other.class_means - self.class_means
        moved = np.sqrt(self.class_counts * share)[:, None] * step
        return Scatter(
            counts,
            self.class_means + share[:, None] * step,
            self.class_squares + other.class_squares + moved**2,
            self.within + other.within + moved.T @ moved,
        )


def scatter(image_embeddings: ArrayLike, labels: ArrayLike, classes: int) -> Scatter:
    """The scatter of images [N, D], of any length, with labels [N] in ``range(classes)``.

    Two passes, block by block, so that the means are exact before anything is squared; O(N D^2) time, O(D^2 + C D) memory.
    Raises MetricError for arrays of other shapes, labels out of range and values that are not finite.

    >>> of = scatter([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]], [0, 0, 1], 2)
    >>> of.class_means.tolist(), of.within.tolist()
    ([[1.0, 1.0], [5.0, 5.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    images = as_matrix("image_embeddings", image_embeddings)
    labels = as_labels(labels, len(images), classes)
    of = scatter_of_blocks(lambda: blocks_by_class(images, labels), classes, images.shape[1])
    check_finite(of.within, images)
    return of


def blocks_by_class(images: Floats, labels: Labels) -> Iterator[tuple[Labels, Labels, Float64]]:
    """The images in the order of their classes, block by block: which they are, their labels, their values as float64."""
    order = np.argsort(labels, kind="stable")
    for rows, block in float64_blocks(images, order):
        chosen = order[rows] if isinstance(rows, slice) else rows
        yield chosen, labels[chosen], block


def scatter_of_blocks(blocks: Blocks, classes: int, dimensions: int) -> Scatter:
    """The scatter of what ``blocks()`` yields, which is called twice; rows of one class should follow each other."""
    counts, means = np.zeros(classes, np.int64), np.zeros((classes, dimensions))
    for _, labels, block in blocks():
        counts += np.bincount(labels, minlength=classes)
        add_by_class(means, block, labels)
    means /= np.maximum(counts, 1)[:, None]
    squares, within, product = np.zeros_like(means), np.zeros((dimensions, dimensions)), np.empty((dimensions, dimensions))
    for _, labels, block in blocks():
        np.subtract(block, means[labels], out=block)
        within += np.matmul(block.T, block, out=product)
        add_by_class(squares, np.square(block, out=block), labels)
    return Scatter(counts, means, squares, within)


def check_finite(sums: Float64, images: Floats) -> None:
    """MetricError that names the row, when sums over ``images`` are not finite."""
    if np.isfinite(sums).all():
        return
    for rows, block in float64_blocks(images):
        wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if wrong.size and isinstance(rows, slice):
            raise MetricError(f"Row {rows.start + wrong[0]} of image_embeddings has a value that is not finite.")
    raise MetricError("The squares of image_embeddings are too large for float64; scale them down.")


def require_classes(of: Scatter, measure: str, least: int = 2) -> None:
    """MetricError unless there is an image, and at least ``least`` classes have some."""
    if not of.count:
        raise MetricError(f"{measure} is undefined for 0 images; it needs at least {least}.")
    if len(of.present) < least:
        raise MetricError(f"{measure} is undefined for 1 class with images; it needs at least {least}.")
