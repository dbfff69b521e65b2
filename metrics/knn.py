"""Leave-one-out accuracy of the k nearest neighbours: how far the labels follow from the nearest images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.metric import TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.once import once_per_sample
from metrics.pair_counts import ONTO_GRID
from metrics.sample import Sample
from metrics.statistics import Float64, Labels, require, unit_rows
from metrics.zero_shot import accuracy_error

NEIGHBOURS = 5
BLOCK_SIMILARITIES = 1 << 22  # similarities held at once: 32 MB


def knn(image_embeddings: ArrayLike, labels: ArrayLike, neighbours: int = NEIGHBOURS) -> float:
    """Share of images whose class is the most frequent among their k = 5 nearest other images by cosine, in [0, 1].

    Images [N, D] of unit rows, labels [N]. Nearer means a larger cosine (those within 2^-40 are equal), then a smaller index, so
    only the order of equally similar images matters; of classes equally frequent among the neighbours, that of the nearest
    wins. With fewer than k other images all of them vote; an image that is the only one of its class is always
    missed. Block by block: O(N^2 D) time, O(N D) memory. Raises MetricError for N < 2 and invalid arrays.

    >>> knn([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], labels=[0, 0, 0, 1], neighbours=1)
    0.75
    """
    return leave_one_out_accuracy(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)), neighbours)


@once_per_sample
def knn_of(sample: Sample) -> float:
    """:func:`knn` of a sample, computed once for accuracy and standard error."""
    return leave_one_out_accuracy(sample, NEIGHBOURS)


def leave_one_out_accuracy(sample: Sample, neighbours: int) -> float:
    """:func:`knn` of a sample with any number of neighbours."""
    require(len(sample), 2, "image", "knn")
    labels, rows = sample.known_labels, unit_rows("image_embeddings", sample.images)
    size = max(1, BLOCK_SIMILARITIES // len(rows))
    correct = 0
    for start in range(0, len(rows), size):
        nearest = nearest_others(rows, slice(start, min(start + size, len(rows))), neighbours)
        correct += int((vote(labels[nearest]) == labels[start : start + size]).sum())
    return correct / len(rows)


def nearest_others(rows: Float64, which: slice, count: int) -> NDArray[np.int64]:
    """The ``count`` nearest of all rows but itself to each row in ``which``, nearest first, [rows, count].

    Rounded similarity and index are packed into one whole number, so that all differ and any selection gives the same.
    """
    total = len(rows)
    keys = np.rint(rows[which] @ rows.T * ONTO_GRID).astype(np.int64)
    keys *= total
    keys += np.arange(total)[::-1]
    keys[np.arange(len(keys)), np.arange(which.start, which.stop)] = np.iinfo(np.int64).min
    count = min(count, total - 1)
    keys.partition(total - count, axis=1)
    return total - 1 - np.sort(keys[:, total - count :], axis=1)[:, ::-1] % total


def vote(labels: Labels) -> Labels:
    """The most frequent label of each row [n, k]; of several, the one that comes first.

    >>> vote(np.array([[2, 1, 1, 2, 3]])).tolist()
    [2]
    """
    votes = (labels[:, :, None] == labels[:, None, :]).sum(axis=2)
    return np.take_along_axis(labels, votes.argmax(axis=1)[:, None], axis=1)[:, 0]


METRICS = (
    Metric(
        "knn",
        f"leave-one-out accuracy of the {NEIGHBOURS} nearest neighbours by cosine",
        knn,
        knn_of,
        higher_is="classes easier to tell from the nearest images",
        family=TRANSFERABILITY,
        range=(0.0, 1.0),
        needs_text=False,
        min_images=2,
        invariances=WITHOUT_TEXT,
        standard_error=lambda sample: accuracy_error(knn_of(sample), len(sample)),
        bootstrap=False,
        cost="O(N^2 D)",
    ),
)
