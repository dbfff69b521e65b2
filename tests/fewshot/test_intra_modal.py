"""The measures together equal those of their own modules, and the variances are traces of covariances."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from fewshot.intra_modal import intra_modal
from metrics.overlap import auroc, overlap, proxy_a_distance
from metrics.statistics import MetricError
from metrics.variance import total_variance


def test_measures_of_some_images() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 60)
    rows = generator.normal(size=(60, 8)) + np.eye(8)[labels]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = asdict(intra_modal(rows, labels))
    means = np.array([rows[labels == number].mean(axis=0) for number in range(4)])
    expected = {
        "overlap": overlap(rows, labels),
        "proxy_a_distance": proxy_a_distance(rows, labels),
        "auroc": auroc(rows, labels),
        "total_variance": np.trace(np.cov(rows.T, bias=True)),
        "within_variance": np.square(rows - means[labels]).sum() / 60,
        "between_variance": np.square(means[labels] - rows.mean(axis=0)).sum() / 60,
    }
    assert found == pytest.approx(expected, abs=1e-12)
    assert found["total_variance"] == pytest.approx(total_variance(rows))


def test_images_without_pairs_have_no_overlap() -> None:
    with pytest.raises(MetricError, match="no two images are of the same class"):
        intra_modal(np.eye(3), [0, 1, 2])
