"""Labelled features, of any length, with the defects that real ones have; the golden data sets; and what is compared how."""

import numpy as np
from sklearn.datasets import load_digits, load_iris

from metrics.table import METRICS


def labelled(seed, *, images=60, dimensions=8, classes=4, scale=1.0, separation=1.0, defect=""):
    """Features [N, D] and unbalanced labels [N] in which every class occurs; ``defect`` is a name of :data:`DEFECTS`."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, images, p=generator.dirichlet(np.full(classes, 2.0)))
    labels[:classes] = np.arange(classes)
    centres = separation * generator.standard_normal((classes, dimensions))
    features = centres[labels] + generator.standard_normal((images, dimensions)) @ generator.standard_normal((dimensions, dimensions)) + 2
    return DEFECTS[defect](scale * features, labels)


def _low_rank(features, labels):
    features[:, -3:] = features[:, :3] @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 2.0], [1.0, 0.0, -1.0]])
    return features, labels


def _constant(features, labels):
    features[:, 1] = 0.1
    return features, labels


def _units(features, labels):
    return features * np.logspace(-3, 3, features.shape[1]), labels


DEFECTS = {
    "": lambda features, labels: (features, labels),
    "low rank": _low_rank,
    "constant feature": _constant,
    "duplicated rows": lambda features, labels: (np.tile(features, (3, 1)), np.tile(labels, 3)),
    "features of different units": _units,
}

IRIS, DIGITS = (tuple(load(return_X_y=True)) for load in (load_iris, load_digits))


def with_gaps(labels):
    """The same labels among twice as many classes, every other one without images."""
    return 2 * labels + 1


def value(name, features, labels):
    """The measure of features without texts."""
    return METRICS[name](features, None, labels)
