"""Zero-shot accuracy: how many images lie nearest to the text of their own class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, TRANSFERABILITY, Metric
from metrics.pair_counts import ONTO_GRID
from metrics.sample import Sample
from metrics.statistics import require, unit_blocks


def zero_shot(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Share of images for which the text with the largest cosine is that of their class, in [0, 1].

    Images [N, D], texts [C, D], labels [N], unit rows. Of texts that are equally near (to 2^-40) the first is the answer.
    Classes without images are possible, wrong, answers. Raises MetricError for N < 1 and invalid arrays. Source: Radford et
    al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021), section 3.1.

    >>> zero_shot([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], labels=[0, 0, 1])
    0.6666666666666666
    """
    return zero_shot_of(Sample(np.asarray(image_embeddings), np.asarray(text_embeddings), np.asarray(labels)))


def zero_shot_of(sample: Sample) -> float:
    """:func:`zero_shot` of a sample."""
    require(len(sample), 1, "image", "zero_shot")
    correct = 0
    for rows, block, _ in unit_blocks("image_embeddings", sample.images):
        answers = np.rint(block @ sample.unit_texts.T * ONTO_GRID).argmax(axis=1)
        correct += int((answers == sample.known_labels[rows]).sum())
    return correct / len(sample)


def accuracy_error(accuracy: float, images: int) -> float:
    """Binomial standard error of an accuracy, sqrt(a (1 - a) / N).

    >>> accuracy_error(0.5, 100)
    0.05
    """
    return float(np.sqrt(accuracy * (1 - accuracy) / images))


METRICS = (
    Metric(
        "zero_shot",
        "zero-shot accuracy: the nearest class text is the right one",
        zero_shot,
        zero_shot_of,
        higher_is="more images recognised without training",
        family=TRANSFERABILITY,
        range=(0.0, 1.0),
        invariances=ALWAYS | {DUPLICATION},
        standard_error=lambda sample: accuracy_error(zero_shot_of(sample), len(sample)),
        cost="O(N C D)",
    ),
)
