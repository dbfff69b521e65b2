"""The measures as their definitions read: loops over pairs, nothing shared with the closed forms. And random input."""

import itertools
import math

import numpy as np


def image_image(images, texts, labels):
    return np.mean([float(np.dot(a, b)) for a, b in itertools.combinations(images, 2)])


def wrong_label(images, texts, labels):
    return np.mean(
        [np.mean([float(np.dot(x, t)) for k, t in enumerate(texts) if k != label]) for x, label in zip(images, labels, strict=True)]
    )


def iimm(images, texts, labels):
    return (image_image(images, texts, labels) + wrong_label(images, texts, labels)) / 2


def alignment(images, texts, labels):
    return np.mean([float(np.dot(x, texts[label])) for x, label in zip(images, labels, strict=True)])


def text_text(images, texts, labels):
    return image_image(texts, None, None)


def gap(images, texts, labels):
    return math.dist([sum(column) / len(images) for column in zip(*images, strict=True)], np.mean(texts, axis=0))


def uniformity_text(images, texts, labels):
    return np.mean(
        [np.mean([float(np.dot(x, t)) for x, label in zip(images, labels, strict=True) if label != k]) for k, t in enumerate(texts)]
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_instance(seed, *, images=40, classes=5, dimensions=16, empty=0, spread=1.0):
    """Unit images and texts with a common direction, unbalanced labels over all but ``empty`` classes (two at least used)."""
    generator = np.random.default_rng(seed)
    centre = generator.standard_normal(dimensions)
    x, t = (unit(centre + spread * generator.standard_normal((count, dimensions))) for count in (images, classes))
    used = generator.permutation(classes)[: max(2, classes - empty)]
    labels = generator.choice(used, images, p=generator.dirichlet(np.ones(len(used))))
    labels[:2] = used[:2]  # not all of one class: uniformity_text would be undefined
    return x, t, labels
