"""EMMS: how well text embeddings of the labels are a linear function of the images.

Meng, Shao, Peng, Jiang, Zhang, Qiao, Luo, "Foundation Model is Efficient Multimodal Multitask Model Selector" (NeurIPS 2023,
arXiv 2308.06262). An F-label is the embedding of an image's class text by one text encoder. With X the images, F_k the
F-labels of encoder k, both [N, .] and standardised in each dimension, and D2 the width of F-labels,

    emms = - min over W and weights t (t_k >= 0, sum_k t_k = 1) of |X W - sum_k t_k F_k|^2 / (N D2)

Nothing of size N is needed for it. X W leaves of sum_k t_k F_k what is orthogonal to the span of the centred images, so
the minimum over W is t^T G t with G_kl = tr F_k^T (I - P) F_l, and what remains is convex in the K weights and solved exactly,
where the paper alternates. F-labels take one value per class, so G follows from class means and the scatter matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metrics.hscore import varying
from metrics.linear_algebra import EPSILON, positive_eigen
from metrics.metric import CLASS_ORDER, DUPLICATION, EMPTY_CLASS, IMAGE_ORDER, TRANSFERABILITY, Metric
from metrics.sample import Sample
from metrics.scatter import Scatter, require_classes
from metrics.statistics import Float64, Floats, Labels, MetricError

RELEASED_EPSILON = 1e-8  # which the released code adds to standard deviations


class FLabels(NamedTuple):
    """Products [K, K] of F-labels, summed over images and dimensions: of themselves, and of the part that images explain."""

    products: Float64
    explained: Float64
    images: int
    width: int


def emms(image_embeddings: ArrayLike, text_embeddings: ArrayLike, labels: ArrayLike, *others: ArrayLike) -> float:
    """Minus the regression error per element, in [-1, 0]: 0 when F-labels are linear in the images, -1 when uncorrelated.

    Images [N, D] of any length, one or several text encoders' embeddings of the C classes (``text_embeddings`` [C, D] and
    ``others`` [C, d_k]), labels [N]. With one encoder it is the mean over text dimensions of R^2 - 1. Rank-aware: with
    no more images than dimensions every F-label is reached and the score is 0.

    Encoders of different widths d_k: standardised F-labels are padded with zeros to the widest, D2, and multiplied by
    sqrt(D2 / d_k), so that all weigh the same, N D2, as in the paper, where all have 1024 dimensions. Dimensions in which
    the texts of all images agree count as explained. Raises MetricError for invalid arrays, fewer than two classes
    with images, and an encoder that embeds the texts of all these classes alike.

    >>> images, texts = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    >>> round(emms(images, texts, labels=[0, 0, 1, 1]), 6)
    -0.307692
    """
    features = tuple(np.asarray(values) for values in (text_embeddings, *others)) if others else ()
    return emms_of(Sample(np.asarray(image_embeddings), np.asarray(text_embeddings), np.asarray(labels), text_features=features))


def emms_of(sample: Sample) -> float:
    """:func:`emms` of a sample; F-labels are its ``text_features``, or where there are none its own encoder's texts."""
    of = f_labels(sample)
    unexplained = of.products - of.explained
    weights = simplex_minimum(unexplained)
    return min(0.0, -float(weights @ unexplained @ weights) / (of.images * of.width))


def emms_as_released(sample: Sample) -> float:
    """One alternation from equal weights, weights by sparsemax, and the squared error divided by N but multiplied by D2.

    W is fitted for equal weights t_0, then weights are fitted to X W without constraint and projected on the simplex: t_1.
    The error is |X W - sum_k t_1k F_k|^2 / N * D2. With one encoder this is D2^2 times :func:`emms` (but for the 1e-8
    that the released code adds to standard deviations); with more it is no minimum.
    """
    of = f_labels(sample, RELEASED_EPSILON)
    equal = np.full(len(of.products), 1 / len(of.products))
    explained = of.explained @ equal
    weights = sparsemax(np.linalg.lstsq(of.products, explained, rcond=1e-12)[0])
    error = equal @ explained - 2 * weights @ explained + weights @ of.products @ weights
    return min(0.0, -float(error) / of.images * of.width)


def f_labels(sample: Sample, epsilon: float = 0.0) -> FLabels:
    """Standardised F-labels of a sample, as products."""
    require_classes(sample.scatter, "emms")
    encoders = sample.text_features or (sample.known_texts,)
    width = max(features.shape[1] for features in encoders)
    weighted = [_standardised(features, sample.scatter.class_counts, width, epsilon) for features in encoders]
    seen = [_whitened_offsets(sample.scatter).T @ each for each in weighted]
    return FLabels(_products(weighted), _products(seen), len(sample), width)


def simplex_minimum(matrix: Float64) -> Float64:
    """The t >= 0 with sum 1 that minimises t^T A t for a positive semidefinite A [K, K].

    With A = R^T R, non-negative least squares of R u = 0 and sum u = 1 has its minimum at a multiple of t: for u = s t the
    error is s^2 q + (s - 1)^2 with q = t^T A t, at best q / (1 + q), which grows with q.

    >>> simplex_minimum(np.diag([1.0, 3.0])).round(6).tolist()
    [0.75, 0.25]
    """
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh(matrix)
    if values[-1] <= 0:
        return np.full(len(matrix), 1 / len(matrix))
    root = np.sqrt(np.maximum(values, 0) / values[-1])[:, None] * vectors.T
    multiple, _ = nnls(np.vstack([root, np.ones(len(matrix))]), np.append(np.zeros(len(matrix)), 1.0))
    return np.asarray(multiple / multiple.sum())


def sparsemax(scores: Float64) -> Float64:
    """The point of the simplex nearest to scores [K]: max(0, s - tau) with sum 1. Martins and Astudillo (ICML 2016).

    >>> sparsemax(np.array([0.9, 0.3, -2.0])).round(6).tolist()
    [0.8, 0.2, 0.0]
    """
    descending = np.sort(scores)[::-1]
    excess = (np.cumsum(descending) - 1) / np.arange(1, len(scores) + 1)
    return np.maximum(0, scores - excess[np.flatnonzero(descending > excess)[-1]])


def _standardised(features: Floats, counts: Labels, width: int, epsilon: float) -> Float64:
    """sqrt(n_c) times the F-label of class c, [C, width], standardised over images and padded."""
    values = np.asarray(features, dtype=np.float64)
    if len(values) != len(counts):
        raise MetricError(f"text_features have {len(values)} rows but there are {len(counts)} classes.")
    if not np.isfinite(values[counts > 0]).all():
        raise MetricError("text_features have a value that is not finite.")
    values = np.where((counts > 0)[:, None], values, 0.0)
    offsets = np.sqrt(counts)[:, None] * (values - counts @ values / counts.sum())
    deviations = np.sqrt(np.square(offsets).sum(axis=0) / counts.sum())
    varies = deviations > EPSILON * np.abs(values).max(axis=0) * len(values)
    if not varies.any():
        raise MetricError("emms is undefined: the text embeddings of all classes with images are equal.")
    padded = np.zeros((len(values), width))
    scale = np.sqrt(width / values.shape[1])
    np.divide(scale * offsets, deviations + epsilon, out=padded[:, : values.shape[1]], where=varies)
    return padded


def _whitened_offsets(of: Scatter) -> Float64:
    """sqrt(n_c) (m_c - m) in coordinates in which the scatter of all images is the identity, [C, rank]."""
    used = varying(of)
    scale = np.sqrt(np.diag(of.centred)[used])
    values, vectors = positive_eigen(of.centred[np.ix_(used, used)] / np.outer(scale, scale), of.count)
    return (of.class_offsets[:, used] / scale) @ vectors / np.sqrt(values)


def _products(parts: list[Float64]) -> Float64:
    """tr A_k^T A_l for all k and l."""
    flat = np.array([part.ravel() for part in parts])
    return flat @ flat.T


METRICS = (
    Metric(
        "emms",
        "linear regression of the class texts' embeddings on the images: minus the error per element",
        emms,
        emms_of,
        higher_is="class texts better explained by images",
        family=TRANSFERABILITY,
        range=(-1.0, 0.0),
        min_images=2,
        min_classes=2,
        invariances=frozenset({IMAGE_ORDER, CLASS_ORDER, DUPLICATION, EMPTY_CLASS}),
        as_released=emms_as_released,
        released_note="one alternation only, and the error multiplied by the width of the text embeddings instead of divided",
        cost="O(N D^2 + D^3 + C D^2)",
    ),
)
