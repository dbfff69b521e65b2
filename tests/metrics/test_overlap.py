"""Overlap, proxy A-distance, Bhattacharyya coefficient and AUROC against loops over pairs; what ties and tiles do to them."""

import itertools

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.metrics import roc_auc_score

from metrics import overlap as measures
from metrics import pair_counts
from metrics.metric import AS_DEFINED
from metrics.pair_counts import Pairs
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs

NAMES = [metric.name for metric in measures.METRICS]
METRICS = {metric.name: metric for metric in measures.METRICS}


def similarities(images, labels):
    """Cosines of pairs of different classes, and of the same class."""
    both = {True: [], False: []}
    for i, j in itertools.combinations(range(len(images)), 2):
        both[bool(labels[i] == labels[j])].append(float(np.dot(images[i], images[j])))
    return np.array(both[False]), np.array(both[True])


def histogram(values):
    """Shares of 200 bins of [-1, 1]; 1e-11 lifts what lies on a border up to rounding."""
    return np.histogram(values + 1e-11, bins=200, range=(-1, 1 + 2e-11))[0] / len(values)


ORACLES = {
    "overlap": lambda different, same: sum(min(p, q) for p, q in zip(histogram(different), histogram(same), strict=True)),
    "proxy_a_distance": lambda different, same: np.abs(histogram(different) - histogram(same)).sum(),  # 2 TV
    "bhattacharyya": lambda different, same: sum(np.sqrt(p * q) for p, q in zip(histogram(different), histogram(same), strict=True)),
    "auroc": lambda different, same: np.mean([0.5 if abs(a - b) < 1e-12 else float(a > b) for a in same for b in different]),
}

INSTANCES = {
    "unbalanced": pairs.random_instance(0, images=60, classes=6, empty=1),
    "fewer images than dimensions": pairs.random_instance(1, images=12, dimensions=40),
    "one dimension": pairs.random_instance(2, dimensions=1),
    "narrow": pairs.random_instance(3, spread=0.05),
    "wide": pairs.random_instance(4, spread=100.0),
    "classes without images": pairs.random_instance(5, classes=12, empty=9),
}


def value(name, images, labels):
    return METRICS[name].function(images, labels)


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition(name, instance):
    images, _, labels = instance
    assert value(name, images, labels) == pytest.approx(ORACLES[name](*similarities(images, labels)), rel=1e-8, abs=1e-14)


def test_auroc_is_that_of_scikit_learn():
    images, _, labels = INSTANCES["unbalanced"]
    different, same = similarities(images, labels)
    expected = roc_auc_score([0] * len(different) + [1] * len(same), np.concatenate([different, same]))
    assert measures.auroc(images, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_repeated_images_tie(name):
    images, _, labels = pairs.random_instance(6, images=15)
    images, labels = np.repeat(images, 3, axis=0), np.tile(labels, 3)  # copies with the same and with other labels
    assert value(name, images, labels) == pytest.approx(ORACLES[name](*similarities(images, labels)), rel=1e-8)


def test_overlap_is_one_minus_total_variation_and_bounds_the_others():
    for images, _, labels in INSTANCES.values():
        p, q = (histogram(values) for values in similarities(images, labels))
        overlap = measures.overlap(images, labels)
        assert overlap == pytest.approx(1 - np.abs(p - q).sum() / 2, abs=1e-13)
        assert measures.proxy_a_distance(images, labels) == pytest.approx(2 * (1 - overlap), abs=1e-13)
        assert overlap - 1e-13 <= measures.bhattacharyya(images, labels) <= np.sqrt(overlap * (2 - overlap)) + 1e-13


def test_classes_apart():
    images, labels = np.repeat(np.eye(3), 4, axis=0), np.repeat(np.arange(3), 4)
    assert [value(name, images, labels) for name in NAMES] == [0.0, 2.0, 0.0, 1.0]


def test_classes_alike():
    """Every class has the same images: pairs differ only in that an image also meets its copies in other classes."""
    images, labels = np.tile(np.eye(2), (50, 1)), np.repeat(np.arange(50), 2)
    assert measures.auroc(images, labels) == pytest.approx(ORACLES["auroc"](*similarities(images, labels)), rel=1e-12)
    assert measures.auroc(images, labels) < 0.5  # a pair of the same class is never a copy here


@pytest.mark.parametrize("name", NAMES)
def test_all_images_equal(name):
    images, labels = np.tile([[0.6, 0.8]], (6, 1)), np.array([0, 0, 0, 1, 1, 2])
    assert value(name, images, labels) == {"overlap": 1.0, "proxy_a_distance": 0.0, "bhattacharyya": 1.0, "auroc": 0.5}[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [[], [0], [0, 0], [0, 0, 0], [0, 0, 0, 0, 0]])
def test_without_pairs_of_different_classes(name, labels):
    images = pairs.random_instance(7)[0][: len(labels)]
    with pytest.raises(MetricError, match=f"{name} is undefined: no two images are of different classes"):
        value(name, images, np.array(labels, int))


@pytest.mark.parametrize("name", NAMES)
def test_one_image_per_class(name):
    with pytest.raises(MetricError, match=f"{name} is undefined: no two images are of the same class"):
        value(name, pairs.random_instance(7)[0], np.arange(40))


def test_rows_that_are_not_unit():
    with pytest.raises(MetricError, match="Row 1 of image_embeddings has length 2"):
        measures.overlap([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], [0, 0, 1])


@pytest.mark.parametrize("tile", [1, 7, 39, 40, 1000])
def test_the_size_of_tiles_changes_no_count(tile, monkeypatch):
    images, _, labels = pairs.random_instance(8)
    images[:10] = np.eye(16)[:10]  # cosines of exactly 0, on the border of two bins
    images[10:16] = images[5]
    whole = Pairs(images, labels)
    expected, derivatives = (whole.cells, whole.values), whole.sums_over_partners(measures._derivatives(whole.cells))
    monkeypatch.setattr(pair_counts, "TILE", tile)
    tiled = Pairs(images, labels)
    assert np.array_equal(tiled.cells, expected[0])
    assert np.array_equal(tiled.values, expected[1])
    assert tiled.sums_over_partners(measures._derivatives(tiled.cells)) == pytest.approx(derivatives, rel=1e-10)


def test_every_pair_counts_once():
    images, _, labels = pairs.random_instance(9, images=33)
    of = Pairs(images, labels)
    different, same = similarities(images, labels)
    for counts in (of.cells, of.values):
        assert counts.sum(axis=1).tolist() == [len(different), len(same)]


@pytest.mark.parametrize("name", NAMES)
def test_rotated_images_with_cosines_on_borders_of_bins(name):
    images, labels = np.repeat(np.eye(8), 3, axis=0), np.tile([0, 0, 1, 2], 6)
    rotated = images @ ortho_group.rvs(8, random_state=0)
    order = np.random.default_rng(0).permutation(24)
    expected = value(name, images, labels)
    assert value(name, rotated, labels) == expected
    assert value(name, rotated[order], labels[order]) == pytest.approx(expected, abs=1e-15)


def test_auroc_of_many_images_is_within_its_resolution(monkeypatch):
    for images, _, labels in INSTANCES.values():
        exact, counts = measures.auroc(images, labels), Pairs(images, labels).cells
        monkeypatch.setattr(pair_counts, "EXACT_IMAGES", 0)
        assert abs(measures.auroc(images, labels) - exact) <= measures.auroc_resolution(counts) + 1e-15
        monkeypatch.undo()


def test_resolution_on_usual_data_is_fine():
    images, _, labels = pairs.random_instance(10, images=1500, dimensions=64)
    assert measures.auroc_resolution(Pairs(images, labels).cells) < 1e-5


def test_all_measures_and_errors_of_a_sample_take_two_passes(monkeypatch):
    images, _, labels = pairs.random_instance(11)
    passes = []
    tiles = Pairs._tiles
    monkeypatch.setattr(pair_counts, "EXACT_IMAGES", 0)
    monkeypatch.setattr(Pairs, "_tiles", lambda self: passes.append(1) or tiles(self))
    sample = Sample(images, labels=labels)
    for metric in measures.METRICS:
        assert metric.score(sample) == value(metric.name, images, labels)
        assert metric.variant(as_released=True) == AS_DEFINED
    del passes[:]
    again = Sample(images, labels=labels)
    for metric in measures.METRICS:
        metric.score(again)
        metric.standard_error(again)
    assert len(passes) == 2


def weighted(name, images, labels, weights):
    """The measure where a pair counts as often as the product of its images' weights."""
    totals = {True: np.zeros(pair_counts.CELLS), False: np.zeros(pair_counts.CELLS)}
    for i, j in itertools.combinations(range(len(images)), 2):
        cell = int(np.floor((images[i] @ images[j] + 1) * pair_counts.CELLS / 2 + 1e-5))
        totals[bool(labels[i] == labels[j])][cell] += weights[i] * weights[j]
    p, q = totals[False] / totals[False].sum(), totals[True] / totals[True].sum()
    if name == "auroc":
        return q @ (np.cumsum(p) - p / 2)
    p, q = (shares.reshape(200, -1).sum(axis=1) for shares in (p, q))
    overlap = np.minimum(p, q).sum()
    return {"overlap": overlap, "proxy_a_distance": 2 * (1 - overlap), "bhattacharyya": np.sqrt(p * q).sum()}[name]


@pytest.mark.parametrize("name", NAMES)
def test_standard_error_is_the_infinitesimal_jackknife(name):
    images, _, labels = pairs.random_instance(12, images=14, classes=3, dimensions=3)
    step, ones = 1e-5, np.ones(14)
    slopes = [
        (weighted(name, images, labels, ones + step * unit) - weighted(name, images, labels, ones - step * unit)) / (2 * step)
        for unit in np.eye(14)
    ]
    error = METRICS[name].standard_error(Sample(images, labels=labels))
    assert error == pytest.approx(np.linalg.norm(slopes), rel=1e-6)


def test_standard_error_is_the_spread_over_samples_of_one_population():
    """To a fifth, so a wrong factor of sqrt(2) would fail."""
    samples = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 4, 100)
        images = pairs.unit(np.eye(8)[labels] + 0.5 * generator.standard_normal((100, 8)))
        samples.append(Sample(images, labels=labels))
    scores = [measures.auroc(sample.images, sample.labels) for sample in samples]
    errors = [METRICS["auroc"].standard_error(sample) for sample in samples[:10]]
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.2)


def test_leaves_its_input_as_it_was():
    images, _, labels = pairs.random_instance(13)
    images.setflags(write=False)
    labels.setflags(write=False)
    for metric in measures.METRICS:
        metric.function(images, labels)
        metric.standard_error(Sample(images, labels=labels))
