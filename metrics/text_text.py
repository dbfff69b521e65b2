"""How alike the class texts are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.metric import ALWAYS, DUPLICATION, SEPARATE_ROTATION, Metric
from metrics.statistics import Float64, mean_over_pairs, require, unit_rows


def text_text(text_embeddings: ArrayLike) -> float:
    """Mean cosine over distinct text pairs, (|t|^2 - sum |t_k|^2) / (C (C - 1)) with t = sum_k t_k, in [-1, 1].

    Texts [C, D], unit rows. Raises MetricError for C < 2 and invalid arrays. The released IIMM code's ``inter_text``.

    >>> round(text_text([[1.0, 0.0], [0.6, 0.8]]), 6)
    0.6
    """
    return text_text_of(unit_rows("text_embeddings", text_embeddings))


def text_text_of(texts: Float64) -> float:
    """:func:`text_text` from float64 texts that have been checked."""
    require(len(texts), 2, "class text", "text_text")
    return mean_over_pairs(texts.sum(axis=0), float(np.vdot(texts, texts)), len(texts))


METRIC = Metric(
    "text_text",
    "mean cosine over distinct text pairs",
    text_text,
    lambda sample: text_text_of(sample.unit_texts),
    higher_is="class texts more alike",
    needs_images=False,
    needs_labels=False,
    min_images=0,
    min_classes=2,
    invariances=ALWAYS | {SEPARATE_ROTATION, DUPLICATION},
    released_names=("inter_text",),
)
