"""PARC against SciPy's Spearman correlation of dissimilarity matrices; ties, many images, the released variant."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from metrics import pair_counts
from metrics.parc import METRICS, parc, parc_of
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs

METRIC = METRICS[0]
INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "fewer images than dimensions": pairs.random_instance(1, images=12, dimensions=40),
    "narrow": pairs.random_instance(2, spread=0.05),
    "classes without images": pairs.random_instance(3, classes=12, empty=9),
}


def rank_correlation(images, labels):
    """Of the lower triangles; rounded, because equal correlations differ in their last bits."""
    below = np.tril_indices(len(images), -1)
    one_hot = np.eye(labels.max() + 2)[labels]
    return 100 * spearmanr(np.round(1 - np.corrcoef(images), 11)[below], np.round(1 - np.corrcoef(one_hot), 11)[below])[0]


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_equals_the_definition(instance):
    images, _, labels = instance
    assert parc(images, labels) == pytest.approx(rank_correlation(images, labels), rel=1e-8)


def test_repeated_images_tie():
    images, _, labels = pairs.random_instance(4, images=15)
    images, labels = np.repeat(images, 3, axis=0), np.tile(labels, 3)  # copies with the same and with other labels
    assert parc(images, labels) == pytest.approx(rank_correlation(images, labels), rel=1e-8)


def test_two_dimensions_make_all_correlations_plus_or_minus_one():
    images, _, labels = pairs.random_instance(5, dimensions=2)
    assert parc(images, labels) == pytest.approx(rank_correlation(images, labels), rel=1e-8)


@pytest.mark.parametrize("change", [lambda x: 7 * x, lambda x: x + 3, lambda x: x * np.arange(1, 41)[:, None]])
def test_scaling_and_shifting_images_changes_nothing(change):
    images, _, labels = pairs.random_instance(6)
    assert parc(change(images), labels) == pytest.approx(parc(images, labels), rel=1e-10)


def test_images_as_alike_as_their_labels():
    images, labels = np.repeat(np.eye(5), [1, 2, 3, 4, 5], axis=0), np.repeat(np.arange(5), [1, 2, 3, 4, 5])
    assert parc(images, labels) == pytest.approx(100.0)


def test_images_of_a_class_unlike_each_other():
    images = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert parc(images, np.array([0, 0, 1, 1])) == pytest.approx(rank_correlation(images, np.array([0, 0, 1, 1])))
    assert parc(images, np.array([0, 0, 1, 1])) < 0


def test_order_and_names_of_classes_change_nothing():
    images, _, labels = pairs.random_instance(7)
    order = np.random.default_rng(0).permutation(40)
    assert parc(images[order], np.array([7, 2, 9, 0, 4])[labels][order]) == pytest.approx(parc(images, labels), rel=1e-12)


def test_many_images_are_ranked_by_cells(monkeypatch):
    monkeypatch.setattr(pair_counts, "EXACT_IMAGES", 0)
    for images, _, labels in INSTANCES.values():
        assert parc(images, labels) == pytest.approx(rank_correlation(images, labels), abs=2e-2)
    images, _, labels = pairs.random_instance(8, images=400, dimensions=32)
    assert parc(images, labels) == pytest.approx(rank_correlation(images, labels), abs=1e-4)


def principal_components(images, count):
    """Scores whose largest entry is positive, from the eigenvectors of the covariance matrix."""
    centred = images - images.mean(axis=0)
    scores = centred @ np.linalg.eigh(np.cov(centred.T))[1][:, ::-1][:, :count]
    return scores * np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(count)])


def test_as_released_standardises_principal_components():
    images, _, labels = pairs.random_instance(9, images=70, dimensions=40)
    scores = principal_components(images, 32)
    expected = rank_correlation(scores / scores.std(axis=0), labels)
    assert METRIC.score(Sample(images, labels=labels), as_released=True) == pytest.approx(expected, rel=1e-8)


def test_as_released_with_fewer_dimensions():
    images, _, labels = pairs.random_instance(10, dimensions=5)
    scores = principal_components(images, 5)
    expected = rank_correlation(scores / scores.std(axis=0), labels)
    assert METRIC.score(Sample(images, labels=labels), as_released=True) == pytest.approx(expected, rel=1e-8)


def test_standard_error_is_the_infinitesimal_jackknife():
    """Against giving one image a little more weight, in the closed form with weighted counts."""
    images, _, labels = pairs.random_instance(11, images=14, classes=3, dimensions=5)
    rows = pairs.unit(images - images.mean(axis=1, keepdims=True))
    upper = np.triu_indices(14, 1)
    cells = np.floor(((rows @ rows.T)[upper] + 1) * pair_counts.CELLS / 2 + 1e-5).astype(int)
    same = (labels[:, None] == labels)[upper]

    def weighted(weights):
        mass = np.outer(weights, weights)[upper]
        p, q = (np.bincount(cells[kind], mass[kind], pair_counts.CELLS) for kind in (~same, same))
        share, tied = q.sum() / mass.sum(), (((p + q) / mass.sum()) ** 3).sum()
        p, q = p / p.sum(), q / q.sum()
        return 100 * np.sqrt(12 * share * (1 - share) / (1 - tied)) * (q @ (np.cumsum(p) - p / 2) - 0.5)

    step, ones = 1e-5, np.ones(14)
    slopes = [(weighted(ones + step * unit) - weighted(ones - step * unit)) / (2 * step) for unit in np.eye(14)]
    assert METRIC.standard_error(Sample(images, labels=labels)) == pytest.approx(np.linalg.norm(slopes), rel=1e-6)


def test_score_and_standard_error_of_a_sample_share_the_pairs():
    images, _, labels = pairs.random_instance(12)
    sample = Sample(images, labels=labels)
    assert parc_of(sample) == parc_of(sample) == parc(images, labels)


def test_an_image_whose_dimensions_are_all_equal():
    images, _, labels = pairs.random_instance(13)
    images[7] = 0.25
    with pytest.raises(MetricError, match="all dimensions of image 7 are equal"):
        parc(images, labels)


def test_all_images_equal():
    with pytest.raises(MetricError, match="all pairs of images are equally correlated"):
        parc(np.tile([[0.6, 0.8, 0.0]], (4, 1)), [0, 0, 1, 1])


def test_one_image_per_class_and_one_class():
    images = pairs.random_instance(14)[0]
    with pytest.raises(MetricError, match="no two images are of the same class"):
        parc(images, np.arange(40))
    with pytest.raises(MetricError, match="no two images are of different classes"):
        parc(images, np.zeros(40, int))


def test_two_images():
    with pytest.raises(MetricError, match="parc is undefined for 2 images; it needs at least 3"):
        parc([[1.0, 0.0], [0.0, 1.0]], [0, 1])


def test_images_that_are_not_finite():
    images, _, labels = pairs.random_instance(15)
    images[17, 2] = np.inf
    with pytest.raises(MetricError, match="Row 17 of image_embeddings has a value that is not finite"):
        parc(images, labels)


def test_leaves_its_input_as_it_was():
    images, _, labels = pairs.random_instance(16)
    images.setflags(write=False)
    labels.setflags(write=False)
    sample = Sample(images, labels=labels)
    METRIC.score(sample)
    METRIC.score(sample, as_released=True)
    METRIC.standard_error(sample)
