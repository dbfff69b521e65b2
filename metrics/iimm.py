"""The Inter-Intra Modal Measure and its two terms, from sums instead of pairs.

Niss, Vogt-Lowell, Tsiligkaridis, "The Inter-Intra Modal Measure: A Predictive Lens on Fine-Tuning Outcomes in
Vision-Language Models" (ICCV 2025, arXiv 2407.15731), section 3.

In the released code the names of the two terms are swapped relative to the paper's words: its ``uniformity_image`` is
:func:`wrong_label` (the paper's inter-modal term) and its ``inter_images`` is :func:`image_image` (the intra-modal term).
"""

from __future__ import annotations

from typing import NamedTuple

from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, EMPTY_CLASS, SEPARATE_ROTATION, Metric, from_statistics
from metrics.statistics import ImageSums, Statistics, image_sums, mean_over_pairs, require, statistics


class IIMM(NamedTuple):
    """The measure beside its two terms, of which it is the mean."""

    iimm: float
    image_image: float
    wrong_label: float


def iimm(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """IIMM = (wrong_label + image_image) / 2, in [-1, 1]; high predicts a large gain from fine-tuning and much forgetting.

    Images [N, D], texts [C, D], labels [N]; rows of unit length. O((N + C) D). Raises MetricError for N < 2, C < 2 and
    invalid arrays. Classes without images are fine.

    >>> images, texts = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(iimm(images, texts, labels=[0, 0, 1]), 6)
    0.366667
    """
    return iimm_of(statistics(image_embeddings, text_embeddings, labels))


def iimm_terms(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> IIMM:
    """IIMM together with its two terms, from the same single pass; arguments and errors as in :func:`iimm`."""
    of = statistics(image_embeddings, text_embeddings, labels)
    return IIMM(iimm_of(of), image_image_of(of.images), wrong_label_of(of))


def image_image(image_embeddings: ArrayLike) -> float:
    """The intra-modal term: mean cosine over distinct image pairs, (|s|^2 - sum |x_i|^2) / (N (N - 1)), in [-1, 1].

    Images [N, D], unit rows. Raises MetricError for N < 2 and invalid arrays. The released code's ``inter_images``.

    >>> round(image_image([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), 6)
    0.466667
    """
    return image_image_of(image_sums(image_embeddings))


def wrong_label(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """The inter-modal term: mean over images of the mean cosine with all texts but the correct one, in [-1, 1].

    With s = sum_i x_i and t = sum_k t_k it is (s.t - sum_i x_i.t_k(i)) / (N (C - 1)). Images [N, D], texts [C, D],
    labels [N], unit rows. Raises MetricError for N < 1, C < 2 and invalid arrays. The released ``uniformity_image``.

    >>> images, texts = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(wrong_label(images, texts, labels=[0, 0, 1]), 6)
    0.266667
    """
    return wrong_label_of(statistics(image_embeddings, text_embeddings, labels))


def iimm_of(of: Statistics) -> float:
    """:func:`iimm` from statistics."""
    require(of.images.count, 2, "image", "iimm")
    require(len(of.texts), 2, "class text", "iimm")
    return (wrong_label_of(of) + image_image_of(of.images)) / 2


def image_image_of(images: ImageSums) -> float:
    """:func:`image_image` from the sums over the images."""
    require(images.count, 2, "image", "image_image")
    return mean_over_pairs(images.total, images.squared_length, images.count)


def wrong_label_of(of: Statistics) -> float:
    """:func:`wrong_label` from statistics."""
    require(of.images.count, 1, "image", "wrong_label")
    require(len(of.texts), 2, "class text", "wrong_label")
    all_pairs = float(of.images.total @ of.texts.sum(axis=0))
    return (all_pairs - of.correct_sum) / (of.images.count * (len(of.texts) - 1))


METRICS = (
    Metric(
        "iimm",
        "Inter-Intra Modal Measure: mean of wrong_label and image_image",
        iimm,
        from_statistics(iimm_of),
        higher_is="larger gain from fine-tuning, more forgetting",
        min_images=2,
        min_classes=2,
        released_names=("IIMM",),
    ),
    Metric(
        "image_image",
        "mean cosine over distinct image pairs (the intra-modal term of IIMM)",
        image_image,
        lambda sample: image_image_of(sample.image_sums),
        higher_is="images more alike",
        needs_text=False,
        needs_labels=False,
        min_images=2,
        invariances=ALWAYS | {SEPARATE_ROTATION, EMPTY_CLASS},
        released_names=("inter_images",),
    ),
    Metric(
        "wrong_label",
        "mean cosine of images with the texts of other classes (the inter-modal term of IIMM)",
        wrong_label,
        from_statistics(wrong_label_of),
        higher_is="images closer to wrong captions",
        min_classes=2,
        invariances=ALWAYS | {DUPLICATION},
        released_names=("uniformity_image",),
    ),
)
