"""METRICS: every measure, what it needs, what it means. The command line, the documentation and the tests read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from metrics.alignment import alignment, alignment_of
from metrics.gap import gap, gap_of
from metrics.iimm import iimm, iimm_of, image_image, image_image_of, wrong_label, wrong_label_of
from metrics.statistics import MetricError, Statistics
from metrics.text_text import text_text, text_text_of
from metrics.uniformity import uniformity_text, uniformity_text_of

# What a measure does not change under. A measure has exactly the invariances that its table entry names.
IMAGE_ORDER = "image order"  # permuting the images with their labels
CLASS_ORDER = "class order"  # permuting the texts, labels renumbered
ROTATION = "rotation"  # one orthogonal map of images and texts
SEPARATE_ROTATION = "separate rotation"  # different orthogonal maps of images and texts
DUPLICATION = "duplication"  # every image repeated equally often
EMPTY_CLASS = "empty class"  # one more text, of a class without images
ALWAYS = frozenset({IMAGE_ORDER, CLASS_ORDER, ROTATION})


@dataclass(frozen=True)
class Metric:
    """A measure: how it is computed, what it needs, and how its value is read.

    ``function`` takes those of (image_embeddings, text_embeddings, labels) that it needs, in this order;
    ``from_statistics`` gives the same number from sums that several measures share.
    """

    name: str
    description: str
    function: Callable[..., float]
    from_statistics: Callable[[Statistics], float]
    higher_is: str
    range: tuple[float, float] = (-1.0, 1.0)
    needs_images: bool = True
    needs_text: bool = True
    needs_labels: bool = True
    min_images: int = 1
    min_classes: int = 1
    invariances: frozenset[str] = ALWAYS
    released_names: tuple[str, ...] = ()

    def __call__(self, image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
        """The measure of a full set of embeddings, whatever it needs of it.

        >>> round(METRICS["text_text"]([[1.0, 0.0]], [[1.0, 0.0], [0.6, 0.8]], [0]), 6)
        0.6
        """
        inputs = ((self.needs_images, image_embeddings), (self.needs_text, text_embeddings), (self.needs_labels, labels))
        return self.function(*(value for needed, value in inputs if needed))


_ALL = (
    Metric(
        "iimm",
        "Inter-Intra Modal Measure: mean of wrong_label and image_image",
        iimm,
        iimm_of,
        higher_is="larger gain from fine-tuning, more forgetting",
        min_images=2,
        min_classes=2,
        released_names=("IIMM",),
    ),
    Metric(
        "image_image",
        "mean cosine over distinct image pairs (the intra-modal term of IIMM)",
        image_image,
        lambda of: image_image_of(of.images),
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
        wrong_label_of,
        higher_is="images closer to wrong captions",
        min_classes=2,
        invariances=ALWAYS | {DUPLICATION},
        released_names=("uniformity_image",),
    ),
    Metric(
        "alignment",
        "mean cosine of images with the text of their own class",
        alignment,
        alignment_of,
        higher_is="images closer to their correct caption",
        invariances=ALWAYS | {DUPLICATION, EMPTY_CLASS},
        released_names=("cos_sim",),
    ),
    Metric(
        "text_text",
        "mean cosine over distinct text pairs",
        text_text,
        lambda of: text_text_of(of.texts),
        higher_is="class texts more alike",
        needs_images=False,
        needs_labels=False,
        min_images=0,
        min_classes=2,
        invariances=ALWAYS | {SEPARATE_ROTATION, DUPLICATION},
        released_names=("inter_text",),
    ),
    Metric(
        "gap",
        "modality gap: distance of the mean image from the mean text",
        gap,
        gap_of,
        higher_is="images and texts further apart",
        range=(0.0, 2.0),
        needs_labels=False,
        invariances=ALWAYS | {DUPLICATION},
        released_names=("gap",),
    ),
    Metric(
        "uniformity_text",
        "mean over texts of their mean cosine with the images of other classes",
        uniformity_text,
        uniformity_text_of,
        higher_is="texts closer to images of other classes",
        min_images=2,
        min_classes=2,
        invariances=ALWAYS | {DUPLICATION},
        released_names=("uniformity_text",),
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

# Every accepted spelling. The released IIMM code swaps inter and intra relative to the paper: see metrics/iimm.py.
BY_ANY_NAME: dict[str, Metric] = {name: metric for metric in _ALL for name in (metric.name, *metric.released_names)}

__all__ = ["BY_ANY_NAME", "METRICS", "Metric", "MetricError"]
