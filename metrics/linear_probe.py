"""Cross-validated accuracy of a linear classifier on the frozen embeddings."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import CLASS_ORDER, EMPTY_CLASS, ROTATION, SEPARATE_ROTATION, TRANSFERABILITY, Metric
from metrics.once import once_per_sample
from metrics.sample import Sample
from metrics.scatter import check_finite
from metrics.statistics import Float64, Labels, MetricError, require
from metrics.zero_shot import accuracy_error

FOLDS = 5
INVERSE_PENALTY = 0.316  # C of CLIP's published example, made for embeddings as its towers give them,
LENGTH = 10.0  # which are about this long; so unit rows are brought to this length
STEPS = 1000  # of L-BFGS at most, as in CLIP


def linear_probe(image_embeddings: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Mean accuracy of multinomial logistic regression on images that it was not fitted to, in [0, 1].

    Images [N, D], labels [N]. Five folds (N if there are fewer images), in which the classes are spread evenly and which
    ``seed`` draws from the images in their order; each is predicted by a classifier fitted to the others. As in CLIP (Radford et
    al., ICML 2021): L-BFGS with at most 1000 steps, an L2 penalty with C = 0.316 on rows of length 10 (which is C = 31.6 on
    unit rows), an intercept, no standardisation. An image that is the only one of its class is always missed. Raises MetricError
    for N < 2, invalid arrays and fewer than two classes with images.

    >>> images = [[1.0, 0.0], [0.8, 0.6], [0.96, 0.28], [0.6, -0.8], [0.0, -1.0], [0.28, -0.96]]
    >>> linear_probe(images, labels=[0, 0, 0, 1, 1, 1])
    1.0
    """
    return linear_probe_of(Sample(np.asarray(image_embeddings), labels=np.asarray(labels), seed=seed))


@once_per_sample
def linear_probe_of(sample: Sample) -> float:
    """:func:`linear_probe` of a sample; fitted once, for accuracy and standard error."""
    require(len(sample), 2, "image", "linear_probe")
    classes, labels = sample.present
    if len(classes) < 2:
        raise MetricError("linear_probe is undefined for 1 class with images; it needs at least 2.")
    images = LENGTH * np.asarray(sample.images, dtype=np.float64)
    check_finite(images, sample.images)
    images -= images.mean(axis=0)  # the intercept makes up for it, so the classifier is the same, found in far fewer steps
    folds = stratified_folds(labels, FOLDS, sample.seed)
    correct = [(predicted(images, labels, folds == fold) == labels[folds == fold]).sum() for fold in range(folds.max() + 1)]
    return float(np.sum(correct)) / len(sample)


def stratified_folds(labels: Labels, folds: int, seed: int) -> Labels:
    """A fold for each image, [N]: sizes differ by one at most, and so do the numbers of a class's images in them.

    The images, drawn in random order and then gathered by class, are dealt out in turn.

    >>> np.bincount(stratified_folds(np.array([0, 0, 0, 0, 1, 1]), 2, seed=0)).tolist()
    [3, 3]
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, first, classes = np.unique(labels[shuffled], return_index=True, return_inverse=True)
    dealt = np.empty(len(labels), np.int64)  # classes in the order in which they were drawn, so their numbers don't matter
    dealt[shuffled[np.argsort(first[classes], kind="stable")]] = np.arange(len(labels)) % folds
    return dealt


def predicted(images: Float64, labels: Labels, held_out: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Labels:
    """The labels that a classifier fitted to the other images gives to those held out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = labels[~held_out]
    if (seen == seen[0]).all():
        return np.full(held_out.sum(), seen[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # CLIP too stops after as many steps
        classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=STEPS).fit(images[~held_out], seen)
    return np.asarray(classifier.predict(images[held_out]))


METRICS = (
    Metric(
        "linear_probe",
        f"{FOLDS}-fold cross-validated accuracy of logistic regression on the images",
        linear_probe,
        linear_probe_of,
        higher_is="classes easier to tell by a linear classifier",
        family=TRANSFERABILITY,
        range=(0.0, 1.0),
        needs_text=False,
        min_images=2,
        min_classes=2,
        invariances=frozenset({CLASS_ORDER, ROTATION, SEPARATE_ROTATION, EMPTY_CLASS}),
        standard_error=lambda sample: accuracy_error(linear_probe_of(sample), len(sample)),
        bootstrap=False,
        cost="O(N C D) per step of L-BFGS",
    ),
)
