"""The measures as their papers and first implementations write them: what the package is timed against, and tested against.

Each takes images [N, D] in float64, labels [N], and where it needs them texts [C, D]. They give the same numbers as
the package's functions of the same names, in more time or memory, and take no care of special cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

Floats = NDArray[Any]
Labels = NDArray[np.int64]
ROWS = 2048  # of the N x N matrix that iimm holds at once
SINGULAR = 1e-12  # eigenvalues below this share of the greatest are taken for zero


def iimm(images: Floats, texts: Floats, labels: Labels) -> float:
    """IIMM from all N^2 image pairs and all N C image-text pairs."""
    count, classes = len(images), len(texts)
    beside_diagonal = 0.0
    for start in range(0, count, ROWS):
        cosines = images[start : start + ROWS] @ images.T
        beside_diagonal += float(cosines.sum(dtype=np.float64)) - float(np.trace(cosines, offset=start, dtype=np.float64))
    cosines = images @ texts.T
    wrong = float(cosines.sum(dtype=np.float64)) - float(cosines[np.arange(count), labels].sum(dtype=np.float64))
    return (beside_diagonal / (count * (count - 1)) + wrong / (count * (classes - 1))) / 2


def class_means_of_images(images: Floats, labels: Labels) -> Floats:
    """For every image the mean of its class, [N, D]."""
    means = np.zeros_like(images)
    for label in np.unique(labels):
        means[labels == label] = images[labels == label].mean(axis=0)
    return means


def hscore(images: Floats, labels: Labels) -> float:
    """trace(pinv(cov(x)) cov(E[x | y]))."""
    between = np.cov(class_means_of_images(images, labels), rowvar=False)
    return float(np.trace(np.linalg.pinv(np.cov(images, rowvar=False), rcond=SINGULAR, hermitian=True) @ between))


def hscore_regularized(images: Floats, labels: Labels) -> float:
    """The same with scikit-learn's Ledoit-Wolf covariance."""
    covariance, shrinkage = ledoit_wolf(images)
    between = np.cov(class_means_of_images(images, labels), rowvar=False)
    return float(np.trace(np.linalg.pinv(covariance, hermitian=True) @ ((1 - shrinkage) * between)))


def logme(images: Floats, labels: Labels, tolerance: float = 1e-6, most: int = 100_000) -> float:
    """Evidence class by class from one-hot targets, by MacKay's fixed point from a = b = 1; for no fewer images than dimensions."""
    left, values, _ = linalg.svd(images, full_matrices=False)
    values = np.where(values > len(images) * np.finfo(float).eps * values[0], values**2, 0.0)
    return float(np.mean([_evidence(left, values, (labels == label) * 1.0, tolerance, most) for label in np.unique(labels)]))


def _evidence(left: Floats, values: Floats, target: Floats, tolerance: float, most: int) -> float:
    projections = (left.T @ target) ** 2 * (values > 0)
    count, ratio = len(target), 1.0
    for _ in range(most):
        known = float((values / (values + ratio)).sum())
        weights = float((values * projections / (values + ratio) ** 2).sum())
        error = float(target @ target - (projections * (1 - (ratio / (values + ratio)) ** 2)).sum())
        a, b = known / weights, (count - known) / error
        before, ratio = ratio, a / b
        if abs(ratio - before) <= tolerance * before:
            break
    fixed = len(values) * np.log(a) + count * np.log(b / (2 * np.pi)) - np.log(a + b * values).sum()
    return float(fixed - b * error - a * weights) / 2 / count


def coding_rate(rows: Floats, eps: float = 1e-4) -> float:
    """log det(I + Z^T Z / (n eps)) / 2."""
    return float(np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * eps))[1]) / 2


def transrate(images: Floats, labels: Labels) -> float:
    """The D x D determinant of all and of every class."""
    centred = images - images.mean(axis=0)
    classes = [centred[labels == label] for label in np.unique(labels)]
    return coding_rate(centred) - sum(len(rows) / len(centred) * coding_rate(rows) for rows in classes)


def bhattacharyya(mean: Floats, other_mean: Floats, variance: Floats, other_variance: Floats) -> float:
    """Distance of two Gaussians with independent features."""
    middle = (variance + other_variance) / 2
    volumes = np.log(middle) - (np.log(variance) + np.log(other_variance)) / 2
    return float(((mean - other_mean) ** 2 / middle).sum() / 8 + volumes.sum() / 2)


def gbc_spherical(images: Floats, labels: Labels) -> float:
    """Pairs of classes in a loop, one variance for all features."""
    return _gbc(images, labels, lambda variances: np.full_like(variances, variances.mean()))


def gbc_diagonal(images: Floats, labels: Labels) -> float:
    """Pairs of classes in a loop, one variance per feature."""
    return _gbc(images, labels, lambda variances: variances)


def _gbc(images: Floats, labels: Labels, form: Any) -> float:
    classes = [images[labels == label] for label in np.unique(labels)]
    gaussians = [(rows.mean(axis=0), form(rows.var(axis=0))) for rows in classes]
    total = 0.0
    for one, (mean, variance) in enumerate(gaussians):
        for other, (other_mean, other_variance) in enumerate(gaussians):
            if one != other:
                total += np.exp(-bhattacharyya(mean, other_mean, variance, other_variance))
    return -total


def sfda(images: Floats, labels: Labels) -> float:
    """Two discriminant analyses by generalised eigenvectors, the second on a mixed copy of the images."""
    first, shrinkage = _fisher(images, labels, None)
    grown = np.exp(first)
    sure = (grown[np.arange(len(labels)), labels] / grown.sum(axis=1))[:, None]
    means = np.array([images[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    second, _ = _fisher(sure * images + (1 - sure) * others[labels], labels, shrinkage)
    return float(second[np.arange(len(labels)), labels].mean())


def _fisher(images: Floats, labels: Labels, shrinkage: float | None) -> tuple[Floats, float]:
    classes = [images[labels == label] for label in range(labels.max() + 1)]
    priors, means = np.array([len(rows) / len(images) for rows in classes]), np.array([rows.mean(axis=0) for rows in classes])
    within = sum(prior * np.cov(rows, rowvar=False, bias=True) for prior, rows in zip(priors, classes, strict=True))
    if shrinkage is None:
        shrinkage = max(float(np.exp(-5 * np.linalg.eigvalsh(within)[-1])), 1e-10)
    identity = np.eye(images.shape[1])
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(identity) * identity
    everything = np.cov(images, rowvar=False, bias=True)
    everything = (1 - shrinkage) * everything + shrinkage * np.trace(everything) / len(identity) * identity
    _, vectors = linalg.eigh(everything - within, within)
    weights = means @ vectors @ vectors.T
    scores = images @ weights.T - (means * weights).sum(axis=1) / 2 + np.log(priors)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True), shrinkage


def ncti(images: Floats, labels: Labels) -> float:
    """ncc + log(seli) - vc of :func:`ncti_parts`."""
    seli, ncc, vc = ncti_parts(images, labels)
    return float(ncc + np.log(seli) - vc)


def ncti_parts(images: Floats, labels: Labels) -> tuple[float, float, float]:
    """seli, ncc and vc, by scikit-learn's principal components and discriminant analysis."""
    rank = np.linalg.matrix_rank(images - images.mean(axis=0))
    components = PCA(min(64, int(rank)), svd_solver="full")
    reduced = components.fit_transform(images)
    shrinkage = max(float(np.exp(-components.explained_variance_[:32].sum())), 1e-10)
    unshrunk = {"solver": "svd"} if shrinkage == 1e-10 else {"solver": "eigen", "shrinkage": shrinkage}
    analysis = LinearDiscriminantAnalysis(**unshrunk)
    features = analysis.fit_transform(reduced, labels)
    seli = float(np.linalg.norm(features - features.mean(axis=0), ord="nuc"))
    probabilities = analysis.predict_proba(reduced)
    norms = sum(float(np.linalg.norm(probabilities[labels == label], ord="nuc")) for label in np.unique(labels))
    return seli, float(probabilities[np.arange(len(labels)), labels].mean()), float(np.log(norms))
