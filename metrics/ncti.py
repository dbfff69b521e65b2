"""NCTI: how far the features are from neural collapse on the task, the state that training ends in.

Wang et al., "How Far Pre-trained Models Are from Neural Collapse on the Target Dataset Informs their Transferability" (ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from metrics.discriminant import Discriminant, discriminant, require_spread
from metrics.linear_algebra import EPSILON, one_thread, positive_eigen, shrunk
from metrics.metric import TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.scatter import Scatter, require_classes
from metrics.statistics import Float64, MetricError, float64_blocks

COMPONENTS, COMPONENTS_OF_SHRINKAGE = 64, 32  # principal components that are kept, and those that decide the shrinkage
LEAST_SHRINKAGE = 1e-10  # at this the discriminant analysis is not shrunk
SINGULAR = 1e-4  # singular values below are taken for zero in it


class NctiParts(NamedTuple):
    """``seli``: nuclear norm of the discriminant features; ``ncc``: mean probability of the correct class, in [0, 1].

    ``vc``: log of the sum over classes of the nuclear norm of their images' probabilities. Neural collapse: great, great, small.
    """

    seli: float
    ncc: float
    vc: float

    @property
    def score(self) -> float:
        """ncc + log(seli) - vc: beside ncc the log of a ratio of two nuclear norms, which needs no other model for its scale."""
        return float(self.ncc + np.log(self.seli) - self.vc)

    @property
    def as_released(self) -> float:
        """ncc + seli - vc, what the released code gives when it is called for one model: seli outweighs the others."""
        return self.ncc + self.seli - self.vc


def ncti(image_embeddings: ArrayLike, labels: ArrayLike) -> float:
    """The parts of :func:`ncti_parts` in one number, ncc + log(seli) - vc; high means closer to neural collapse.

    The paper scales each part by its least and greatest value among the models compared (:func:`compare_ncti`), so that a score
    depends on which these are. This one does not.

    >>> round(ncti([[0.0, 1.0], [0.2, 0.6], [0.3, 0.1], [0.6, 0.0]], [0, 0, 1, 1]), 6)
    1.695676
    """
    return ncti_parts(image_embeddings, labels).score


def ncti_parts(image_embeddings: ArrayLike, labels: ArrayLike) -> NctiParts:
    """The three parts, of a discriminant analysis in the first 64 principal components (or as many as there are).

    The covariance within classes is shrunk by a = max(exp(-v), 1e-10), v the variance of the first 32 components, and not at all
    at a = 1e-10. Images [N, D] of any length, labels [N]; classes without images don't count. Unit rows have v < 1, so that a > 0.37.
    Raises MetricError for fewer than two classes with images, when no class has two different images, and for invalid arrays.
    """
    return ncti_parts_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels)))


def ncti_parts_of(sample: Sample) -> NctiParts:
    """:func:`ncti_parts` of a sample."""
    of = sample.scatter
    require_classes(of, "ncti")
    require_spread(of, "ncti")
    require_different_means(of)
    variances, axes = positive_eigen(of.centred, of.count)
    variances, axes = variances[:COMPONENTS] / (of.count - 1), axes[:, :COMPONENTS]
    reduced, shrinkage = project(of.compact, axes), float(np.exp(-variances[:COMPONENTS_OF_SHRINKAGE].sum()))
    features, by = unshrunk_analysis(reduced) if shrinkage <= LEAST_SHRINKAGE else shrunk_analysis(reduced, shrinkage)
    seli = float(np.sqrt(np.maximum(linalg.eigvalsh(features.T @ reduced.centred @ features), 0)).sum())
    return NctiParts(seli, *prediction_parts(sample, axes, by))


def require_different_means(of: Scatter) -> None:
    """MetricError when all classes have one mean (to rounding): there is no discriminant feature then."""
    if (np.diag(of.between) <= (of.count * EPSILON) ** 2 * np.diag(of.gram)).all():
        raise MetricError("ncti is undefined when all classes have the same mean.")


def project(of: Scatter, axes: Float64) -> Scatter:
    """The scatter of the images' coordinates on ``axes`` [D, d], about the mean of all."""
    means = (of.class_means - of.mean) @ axes
    return Scatter(of.class_counts, means, axes.T @ of.within @ axes)


def unshrunk_analysis(of: Scatter) -> tuple[Float64, Discriminant]:
    """Discriminant features [d, r] of unit variance within classes, and the analysis in their space.

    Directions without variance within classes are left out, and so are those without any between. Variances are divided by N, as
    in present releases of scikit-learn, whose analysis the released code calls; older ones divide by N - K.
    """
    spread = np.sqrt(np.diag(of.within) / of.count)
    spread[spread <= of.count * EPSILON * np.sqrt(np.trace(of.centred) / of.count)] = 1.0
    values, vectors = linalg.eigh(of.within / np.outer(spread, spread) / of.count)
    kept = values > SINGULAR**2
    whitening = vectors[:, kept] / spread[:, None] / np.sqrt(values[kept])
    _, lengths, directions = linalg.svd(of.class_offsets @ whitening, full_matrices=False)
    features = whitening @ directions[lengths > SINGULAR * lengths[0]].T
    means = of.class_means @ features
    return features, Discriminant(means @ features.T, np.log(of.class_counts / of.count) - (means**2).sum(axis=1) / 2)


def shrunk_analysis(of: Scatter, shrinkage: float) -> tuple[Float64, Discriminant]:
    """The same with shrunk covariances; the features are the greatest generalised eigenvectors between against within."""
    within = shrunk(of.within / of.count, shrinkage)
    _, vectors = linalg.eigh(shrunk(of.centred / of.count, shrinkage) - within, within)
    return vectors[:, ::-1][:, : len(of.class_counts) - 1], discriminant(of, within)


def prediction_parts(sample: Sample, axes: Float64, by: Discriminant) -> tuple[float, float]:
    """``ncc`` and ``vc``, class by class."""
    labels, mean = sample.present.labels, sample.scatter.mean
    coordinates = np.empty((len(sample), axes.shape[1]))
    for rows, block in float64_blocks(sample.images):
        coordinates[rows] = (block - mean) @ axes
    order, counts = np.argsort(labels, kind="stable"), sample.scatter.compact.class_counts
    known = norms = 0.0
    with one_thread():
        for label, rows in enumerate(np.split(order, np.cumsum(counts)[:-1])):
            probabilities = by.probabilities(coordinates[rows])
            known += float(probabilities[:, label].sum())
            norms += float(linalg.svd(probabilities, compute_uv=False, check_finite=False).sum())
    return known / len(sample), float(np.log(norms))


def compare_ncti(parts: Sequence[NctiParts]) -> Float64:
    """The paper's score of each of several models on one task: ncc + seli - vc, each scaled to [0, 1] over these models.

    A part that is equal for all models counts 0 (0 / 0 in the released code).

    >>> compare_ncti([NctiParts(10.0, 0.5, 3.0), NctiParts(20.0, 0.9, 3.0)]).tolist()
    [0.0, 2.0]
    """
    table = np.array(parts, np.float64).reshape(-1, 3)
    least, width = table.min(axis=0, initial=np.inf), np.ptp(table, axis=0) if len(table) else 1.0
    scaled = np.divide(table - least, width, out=np.zeros_like(table), where=np.broadcast_to(width > 0, table.shape))
    return np.asarray(scaled @ [1.0, 1.0, -1.0])


METRIC = Metric(
    "ncti",
    "NCTI: closeness to neural collapse, of one model by itself",
    ncti,
    lambda sample: ncti_parts_of(sample).score,
    higher_is="features closer to the state that training ends in",
    family=TRANSFERABILITY,
    range=(-np.inf, np.inf),
    needs_text=False,
    min_images=3,
    min_classes=2,
    invariances=WITHOUT_TEXT,
    as_released=lambda sample: ncti_parts_of(sample).as_released,
    released_note="the sum of the three parts on their own scales, as for one model; over several models see compare_ncti",
    cost="O(N D^2 + D^3 + N C min(n_c, C))",
)
