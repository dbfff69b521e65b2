"""One task seen by one encoder, with what several measures need of it computed at most once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.scatter import ClassMeans, Scatter, Squares, blocks_by_class, class_means, scatter_about, squares_about
from metrics.statistics import (
    Float64,
    Floats,
    ImageSums,
    Labels,
    MetricError,
    Statistics,
    as_labels,
    as_matrix,
    image_sums,
    unit_blocks,
    unit_rows,
)


class Present(NamedTuple):
    """``classes`` [K]: those that have images; ``labels`` [N]: of each image, the place of its class among them."""

    classes: Labels
    labels: Labels


@dataclass(frozen=True, eq=False)
class Sample:
    """Images [N, D] of any float type (never copied as a whole, never written to) with what is known of them.

    ``texts`` [C, D] and ``labels`` [N] may be missing; a measure that needs them says so. ``logit_scale`` multiplies
    cosines before a softmax (of CLIP: 100). ``text_features`` are further embeddings [C, d] of the same class texts, by
    other text encoders. ``seed`` decides the measures that draw. Raises MetricError for arrays that do not fit together.

    >>> sample = Sample([[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [0.0, 1.0]], [0, 1], logit_scale=1.0)
    >>> sample.zero_shot_probabilities.round(3).tolist()
    [[0.731, 0.269], [0.45, 0.55]]
    >>> sample.subset([1]).labels
    array([1])
    """

    images: Floats
    texts: Floats | None = None
    labels: Labels | None = None
    logit_scale: float = 100.0
    text_features: tuple[Floats, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {"images": as_matrix("image_embeddings", self.images)}
        if self.texts is not None:
            checked["texts"] = as_matrix("text_embeddings", self.texts)
            _check_width(checked["images"], checked["texts"])
        if self.labels is not None:
            given = np.asarray(self.labels)
            classes = len(checked["texts"]) if "texts" in checked else _classes_of(given)
            checked["labels"] = as_labels(given, len(checked["images"]), classes)
        checked["text_features"] = tuple(as_matrix("text_features", features) for features in self.text_features)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    @property
    def classes(self) -> int:
        """C: as many as there are texts; without texts, up to the largest label."""
        return len(self.texts) if self.texts is not None else _classes_of(self.known_labels)

    @property
    def known_labels(self) -> Labels:
        """The labels; MetricError without."""
        if self.labels is None:
            raise MetricError("This measure needs the labels of the images.")
        return self.labels

    @property
    def known_texts(self) -> Floats:
        """The texts; MetricError without."""
        if self.texts is None:
            raise MetricError("This measure needs text embeddings.")
        return self.texts

    @cached_property
    def present(self) -> Present:
        """The classes that have images."""
        return Present(*np.unique(self.known_labels, return_inverse=True))

    @cached_property
    def unit_texts(self) -> Float64:
        """The texts in float64; MetricError unless they are unit rows."""
        return unit_rows("text_embeddings", self.known_texts)

    @cached_property
    def image_sums(self) -> ImageSums:
        """Sums over the images, by class where labels are known; MetricError unless the images are unit rows."""
        return image_sums(self.images, self.labels, 1 if self.labels is None else self.classes)

    @cached_property
    def statistics(self) -> Statistics:
        """The sums over images and the texts; MetricError unless both are unit rows."""
        return Statistics(self.image_sums, self.unit_texts)

    @cached_property
    def class_means(self) -> ClassMeans:
        """Numbers and means of the images by class; the images may have any length, here and in what follows from it."""
        return class_means(self.images, self.known_labels, self.classes)

    @cached_property
    def scatter(self) -> Scatter:
        """The scatter within and between classes, O(N D^2)."""
        return scatter_about(self.class_means, self.blocks_by_class)

    @cached_property
    def squares(self) -> Squares:
        """The squares about the class means by class and feature, O(N D)."""
        return squares_about(self.class_means, self.blocks_by_class)

    def blocks_by_class(self) -> Iterator[tuple[Labels, Labels, Float64]]:
        """The images sorted by class, in blocks: which they are, their labels, their values."""
        return blocks_by_class(self.images, self.known_labels)

    @cached_property
    def zero_shot_probabilities(self) -> Float64:
        """softmax_k(logit_scale x_i.t_k), [N, C] float64: the zero-shot classifier. MetricError unless rows are unit."""
        probabilities = np.empty((len(self.images), len(self.unit_texts)))
        for rows, block, _ in unit_blocks("image_embeddings", self.images):
            probabilities[rows] = softmax(self.logit_scale * (block @ self.unit_texts.T))
        return probabilities

    def subset(self, indices: ArrayLike) -> Sample:
        """The sample of these images only, in this order, repeated where an index is (as the bootstrap does)."""
        chosen = np.asarray(indices)
        return replace(self, images=self.images[chosen], labels=None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True, eq=False)
class SampleOfWhole(Sample):
    """Some of the images that ``whole`` holds the sums of: what leaves out images one by one leaves them out of the whole."""

    whole: ImageSums | None = None

    @property
    def image_sums(self) -> ImageSums:  # type: ignore[override]
        """The sums over the whole."""
        assert self.whole is not None
        return self.whole


def softmax(scores: Float64) -> Float64:
    """exp(s_k) / sum_k exp(s_k) along rows, written over ``scores``.

    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _classes_of(labels: NDArray[Any]) -> int:
    return int(labels.max(initial=-1)) + 1


def _check_width(images: Floats, texts: Floats) -> None:
    if images.shape[1] != texts.shape[1]:
        raise MetricError(
            f"image_embeddings have {images.shape[1]} dimensions but text_embeddings {texts.shape[1]}; they must be of one model."
        )
