"""NLEEP: LEEP with the clusters of a Gaussian mixture in place of a source classifier, so no head and no text is needed.

Li, Jia, Sang, Zhu, Green, Wang, Gong, "Ranking Neural Checkpoints" (CVPR 2021, arXiv 2011.11200), section 4.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from metrics.leep import expected_predictions
from metrics.metric import DUPLICATION, IMAGE_ORDER, TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.once import once_per_sample
from metrics.sample import Sample
from metrics.scatter import check_finite
from metrics.statistics import Float64, MetricError, require

VARIANCE = 0.8  # share that the principal components keep
COMPONENTS = 5  # of the mixture, for each class


def nleep(image_embeddings: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Mean over images of log sum_v P(y_i | v) P(v | x_i), 0 at best, with v the components of a Gaussian mixture.

    The images [N, D], of any length, are projected on the d principal components that keep 80 % of the variance; the mixture
    has 5 K components, K the number of classes among labels [N]. P(y | v) is the empirical conditional, as in LEEP. ``seed``
    draws where EM (scikit-learn's, from k-means, at most 100 steps) starts, among the images in their order, so another seed
    or order gives a slightly different score.

    Covariances are diagonal in the principal components: an EM step takes O(N K d). Full ones, as in the code released with
    later papers, take O(N K d^2), which is too slow for hundreds of classes, and the few images that a component then has do
    not determine them. Raises MetricError for N <= 5 K, when all images are equal, and for values that are not finite.

    >>> images = np.random.default_rng(0).standard_normal((40, 3)) + np.repeat([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]], 20, axis=0)
    >>> nleep(images, labels=np.repeat([0, 1], 20)) > -1e-9, nleep(images, labels=np.tile([0, 1], 20)) > -0.3
    (True, False)
    """
    return nleep_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels), seed=seed))


def nleep_of(sample: Sample) -> float:
    """:func:`nleep` of a sample."""
    return float(_log_predictions(sample).mean())


def nleep_as_released(sample: Sample) -> float:
    """With full covariances, the mean of the predictions themselves instead of their logarithms, in (0, 1]."""
    return float(_predictions(sample, "full").mean())


def nleep_standard_error(sample: Sample) -> float:
    """Standard deviation of the logarithms over sqrt(N): that of the mean, given the mixture."""
    return float(_log_predictions(sample).std(ddof=1)) / len(sample) ** 0.5


@once_per_sample
def _log_predictions(sample: Sample) -> Float64:
    """The mixture is fitted once for score and standard error."""
    return np.log(_predictions(sample, "diag"))


def posteriors(images: Float64, components: int, seed: int, covariances: str = "diag") -> Float64:
    """P(v | x_i), [N, components], with covariances ``diag`` or ``full``."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # repeated images leave components empty, which is harmless
        projected = PCA(VARIANCE, svd_solver="full").fit_transform(images)
        mixture = GaussianMixture(components, covariance_type=covariances, random_state=seed)
        return np.asarray(mixture.fit(projected).predict_proba(projected))


def _predictions(sample: Sample, covariances: str) -> Float64:
    """sum_v P(y_i | v) P(v | x_i) for each image, [N]."""
    require(len(sample), 1, "image", "nleep")
    components = COMPONENTS * len(sample.present.classes)
    if len(sample) <= components:
        raise MetricError(
            f"nleep is undefined for {len(sample)} images and {components} components; it needs more than 5 images per class."
        )
    images = np.array(sample.images, dtype=np.float64)
    check_finite(images, sample.images)
    if (images == images[0]).all():
        raise MetricError("nleep is undefined: all images are equal.")
    return expected_predictions(posteriors(images, components, sample.seed, covariances), sample.present.labels)


METRICS = (
    Metric(
        "nleep",
        "log expected empirical prediction from a Gaussian mixture of the images",
        nleep,
        nleep_of,
        higher_is="classes easier to tell from clusters of images",
        family=TRANSFERABILITY,
        range=(-np.inf, 0.0),
        needs_text=False,
        min_images=COMPONENTS + 1,
        invariances=WITHOUT_TEXT - {IMAGE_ORDER} | {DUPLICATION},
        as_released=nleep_as_released,
        released_note="full covariances, and the mean without the logarithm, as in the code released with SFDA and EMMS",
        standard_error=nleep_standard_error,
        bootstrap=False,
        cost="O(N C D) per EM step",
    ),
)
