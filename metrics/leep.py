"""LEEP: how well the classes follow from what a source classifier says of the images. Here that is the zero-shot classifier.

Nguyen, Hassner, Seeger, Archambeau, "LEEP: A New Measure to Evaluate Transferability of Learned Representations" (ICML
2020, arXiv 2002.12462), equation 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, TRANSFERABILITY, Metric
from metrics.sample import Sample
from metrics.statistics import Float64, Labels, add_by_class, float64_blocks, require


def leep(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike, logit_scale: float = 100.0) -> float:
    """Mean over images of log sum_z P(y_i | z) theta_iz, 0 at best.

    theta_iz = softmax_z(logit_scale x_i.t_z) is the zero-shot classifier, P(y | z) its empirical conditional: of all the
    probability given to z, the share that images of class y receive. Images [N, D], texts [C, D], labels [N], unit rows.
    Never below minus the entropy of the labels, the score of a classifier that says the same of every image. A class
    without images is still an answer z that the classifier can give. Raises MetricError for N < 1 and invalid arrays.

    >>> images, texts = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(leep(images, texts, labels=[0, 1, 1]), 6), round(leep(images, texts, labels=[0, 0, 1]), 6)
    (-0.0, -0.462098)
    """
    return leep_of(Sample(np.asarray(image_embeddings), np.asarray(text_embeddings), np.asarray(labels), logit_scale))


def leep_of(sample: Sample) -> float:
    """:func:`leep` of a sample."""
    require(len(sample), 1, "image", "leep")
    return float(np.log(expected_predictions(sample.zero_shot_probabilities, sample.present.labels)).mean())


def expected_predictions(source: Float64, labels: Labels) -> Float64:
    """sum_z P(y_i | z) theta_iz for each image, [N], from theta [N, Z] and labels [N] in 0..K-1, each in use.

    The joint P(y, z) is a sum of rows per class, and each image needs only the row of its own class from P(y | z):
    O(N Z) instead of the O(N Z K) of multiplying theta with one-hot labels and with all of P(y | z). It is at least
    1 / (N Z), so its logarithm is finite; a z to which no image gives probability contributes 0.

    >>> expected_predictions(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1])).round(4).tolist()
    [0.6667, 0.6667]
    """
    order = np.argsort(labels, kind="stable")
    conditional = np.zeros((int(labels[order[-1]]) + 1, source.shape[1]))
    for rows, block in float64_blocks(source, order):
        add_by_class(conditional, block, labels[rows])
    marginal = conditional.sum(axis=0)
    np.divide(conditional, marginal, out=conditional, where=marginal > 0)
    expected = np.empty(len(source))
    for rows, block in float64_blocks(source, order):
        expected[rows] = np.einsum("nz,nz->n", block, conditional[labels[rows]])
    return expected


METRICS = (
    Metric(
        "leep",
        "log expected empirical prediction from the zero-shot classifier",
        leep,
        leep_of,
        higher_is="classes easier to tell from zero-shot predictions",
        family=TRANSFERABILITY,
        range=(-np.inf, 0.0),
        invariances=ALWAYS | {DUPLICATION},
        cost="O(N C D)",
    ),
)
