"""Linear discriminant analysis against scikit-learn's."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from metrics.discriminant import discriminant
from metrics.scatter import scatter
from metrics.statistics import MetricError


def test_probabilities_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 80)
    rows = generator.standard_normal((80, 6)) + 0.5 * labels[:, None]
    of = scatter(rows, labels, 3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(rows, labels)
    ours = discriminant(of, of.within / of.count)
    np.testing.assert_allclose(ours.probabilities(rows), theirs.predict_proba(rows), atol=1e-12)


def test_a_singular_covariance_is_told() -> None:
    of = scatter(np.eye(4)[[0, 0, 1, 1]], np.array([0, 0, 1, 1]), 2)
    with pytest.raises(MetricError, match="covariance within classes is singular"):
        discriminant(of, of.within)
