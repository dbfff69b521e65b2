"""The Gaussian Bhattacharyya coefficient, spherical and diagonal."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from benchmarks import plain
from metrics.gbc import gbc_diagonal, gbc_spherical
from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.table import METRICS
from tests.metrics.features import DIGITS, IRIS, labelled, with_gaps

FORMS = {"gbc_spherical": (gbc_spherical, plain.gbc_spherical), "gbc_diagonal": (gbc_diagonal, plain.gbc_diagonal)}


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("gbc_spherical", IRIS, -0.337804311),
        ("gbc_diagonal", IRIS, -0.230685579),
        ("gbc_spherical", DIGITS, -0.0536586475),
        ("gbc_diagonal", DIGITS, -0.000120256617),
    ],
)
def test_golden_as_released(name, data, expected):
    """Values of the released code: ordered pairs, a one-dimensional log-determinant, variances of at least 1e-4."""
    assert METRICS[name].score(Sample(data[0], labels=data[1]), as_released=True) == pytest.approx(expected, rel=2e-9)


def test_golden():
    """Diagonal, and no variance below 1e-4: the released code computes the definition."""
    assert gbc_diagonal(*IRIS) == pytest.approx(-0.230685579, rel=2e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("separation", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("name", FORMS)
def test_equals_the_loop_over_pairs(name, separation, seed):
    function, oracle = FORMS[name]
    features, labels = labelled(seed, images=200, separation=separation)
    assert function(features, labels) == pytest.approx(oracle(features, labels), rel=1e-8)


@pytest.mark.parametrize("name", FORMS)
def test_fewer_images_than_dimensions_and_dependent_features(name):
    function, oracle = FORMS[name]
    for features, labels in (labelled(0, images=30, dimensions=50), labelled(1, images=200, defect="low rank")):
        assert function(features, labels) == pytest.approx(oracle(features, labels), rel=1e-8)


@pytest.mark.parametrize("name", FORMS)
def test_is_the_integral_of_the_geometric_mean(name):
    """In one dimension, the overlap of two Gaussians by numerical integration."""
    features, labels = labelled(2, dimensions=1, classes=2)
    one, other = (norm(features[labels == label].mean(), features[labels == label].std()) for label in (0, 1))
    overlap = quad(lambda x: np.sqrt(one.pdf(x) * other.pdf(x)), -60, 60, epsabs=1e-12, limit=500)[0]
    assert FORMS[name][0](features, labels) == pytest.approx(-2 * overlap, rel=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_identical_classes_overlap_fully(name):
    features, _ = labelled(3, images=20)
    assert FORMS[name][0](np.tile(features, (3, 1)), np.repeat([0, 1, 2], 20)) == pytest.approx(-6, rel=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_far_apart_classes_do_not_overlap(name):
    features, labels = labelled(4)
    assert FORMS[name][0](features + 1e3 * labels[:, None], labels) == 0.0


def test_spherical_and_diagonal_agree_when_all_variances_are_equal():
    points = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    features, labels = np.concatenate([points, 2 * points + 3]), np.repeat([0, 1], 4)
    assert gbc_spherical(features, labels) == pytest.approx(gbc_diagonal(features, labels), rel=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_feature_that_is_constant_everywhere_is_ignored_by_the_diagonal_form(constant):
    features, labels = labelled(5)
    widened = np.column_stack([features, np.full(len(features), constant)])
    assert gbc_diagonal(widened, labels) == pytest.approx(gbc_diagonal(features, labels), rel=1e-12)


def test_a_feature_that_is_constant_in_one_class_separates_it_in_the_diagonal_form():
    features, labels = labelled(6, classes=3)
    features[labels == 0, 2] = 0.1
    others = labels != 0
    assert gbc_diagonal(features, labels) == pytest.approx(gbc_diagonal(features[others], labels[others]), rel=1e-12)


def test_a_feature_with_another_constant_in_each_class_separates_them_in_the_diagonal_form():
    features, labels = labelled(7)
    features[:, 2] = 0.1 * labels
    assert gbc_diagonal(features, labels) == 0.0


@pytest.mark.parametrize("name", FORMS)
def test_a_class_with_one_image_overlaps_with_none(name):
    features, labels = labelled(8)
    more, more_labels = np.concatenate([features, features[:1]]), np.append(labels, 4)
    assert FORMS[name][0](more, more_labels) == pytest.approx(FORMS[name][0](features, labels), rel=1e-12)
    assert FORMS[name][0](features, np.arange(len(features))) == 0.0


@pytest.mark.parametrize("name", FORMS)
def test_equal_points_overlap_fully(name):
    features = np.array([[0.1, 0.7]] * 3 + [[0.1, 0.7]] * 7 + [[0.2, 0.7]] * 2)
    assert FORMS[name][0](features, np.repeat([0, 1, 2], [3, 7, 2])) == -2.0


@pytest.mark.parametrize("name", FORMS)
def test_as_released_a_constant_feature_has_a_variance_of_its_own(name):
    features, labels = labelled(9)
    features[:, 2] = 0.1
    score = METRICS[name].score(Sample(features, labels=labels), as_released=True)
    assert np.isfinite(score)
    assert score < 0


@pytest.mark.parametrize("name", FORMS)
def test_classes_without_images_are_ignored(name):
    features, labels = labelled(10)
    assert FORMS[name][0](features, with_gaps(labels)) == pytest.approx(FORMS[name][0](features, labels), rel=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_one_class(name):
    with pytest.raises(MetricError, match="undefined for 1 class with images"):
        FORMS[name][0](np.eye(3), [2, 2, 2])
