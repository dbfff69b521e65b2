"""EMMS against least squares on N x D2 matrices and a search over the simplex; the released code's variant step by step."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import ortho_group

from metrics.emms import METRICS, emms, simplex_minimum, sparsemax
from metrics.sample import Sample
from metrics.statistics import MetricError
from tests.metrics import pairs

METRIC = METRICS[0]


def instance(seed=0, encoders=1, widths=(16, 7, 11), **shape):
    """Images, one text encoder's embeddings or several, labels."""
    images, texts, labels = pairs.random_instance(seed, **shape)
    generator = np.random.default_rng(seed)
    others = [generator.standard_normal((len(texts), width)) for width in widths[1:encoders]]
    return images, [texts, *others], labels


def standardised(values, epsilon=0.0):
    deviations = values.std(axis=0)
    constant = deviations < 1e-12
    return np.where(constant, 0.0, (values - values.mean(axis=0)) / np.where(constant, 1.0, deviations + epsilon))


def padded_f_labels(texts, labels, epsilon=0.0):
    """[K, N, D2]: standardised, as wide as the widest, each of the same total variance."""
    width = max(text.shape[1] for text in texts)
    parts = [standardised(text[labels], epsilon) * np.sqrt(width / text.shape[1]) for text in texts]
    return np.array([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


def error(images, labels_of_weights):
    """|X W - F|^2 at the best W."""
    x = images - images.mean(axis=0)
    return float(((x @ np.linalg.lstsq(x, labels_of_weights, rcond=None)[0] - labels_of_weights) ** 2).sum())


def definition(images, texts, labels):
    """The minimum over the simplex, found by a general solver from several starts."""
    f_labels = padded_f_labels(texts, labels)
    encoders, count, width = f_labels.shape
    starts = [np.full(encoders, 1 / encoders), *np.eye(encoders)]
    options = {"bounds": [(0, 1)] * encoders, "constraints": {"type": "eq", "fun": lambda t: t.sum() - 1}}

    def objective(weights):
        return error(images, np.tensordot(weights, f_labels, 1)) / (count * width)

    found = [minimize(objective, start, method="SLSQP", tol=1e-13, **options) for start in starts]
    return -min([*(one.fun for one in found), *(objective(start) for start in starts)])


SHAPES = {
    "unbalanced": {"images": 60, "classes": 6, "empty": 1},
    "narrow": {"spread": 0.05},
    "classes without images": {"classes": 12, "empty": 9},
    "rank deficient": {"images": 25, "dimensions": 16, "classes": 20},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_encoder_is_least_squares(shape):
    images, texts, labels = instance(1, **shape)
    f_labels = standardised(texts[0][labels])
    assert emms(images, texts[0], labels) == pytest.approx(-error(images, f_labels) / f_labels.size, rel=1e-8)


@pytest.mark.parametrize("encoders", [2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_several_encoders_reach_the_minimum_over_weights(shape, encoders):
    images, texts, labels = instance(2, encoders, **shape)
    found = emms(images, texts[0], labels, *texts[1:])
    expected = definition(images, texts, labels)
    assert found == pytest.approx(expected, rel=1e-6)  # as far as the general solver comes
    assert found >= expected - 1e-10


def test_alternating_until_it_stops_reaches_the_same():
    """The paper's way: W by least squares for the weights, then weights by a projected gradient step, again and again."""
    images, texts, labels = instance(3, encoders=3)
    f_labels, x = padded_f_labels(texts, labels), images - images.mean(axis=0)
    gram = np.tensordot(f_labels, f_labels, ([1, 2], [1, 2]))
    weights = np.full(3, 1 / 3)
    for _ in range(3000):
        fitted = x @ np.linalg.lstsq(x, np.tensordot(weights, f_labels, 1), rcond=None)[0]
        gradient = gram @ weights - np.tensordot(f_labels, fitted, ([1, 2], [0, 1]))
        weights = sparsemax(weights - gradient / np.linalg.norm(gram, 2))
    reached = -error(images, np.tensordot(weights, f_labels, 1)) / f_labels[0].size
    assert emms(images, texts[0], labels, *texts[1:]) == pytest.approx(reached, rel=1e-8)


def test_one_alternation_as_released():
    images, texts, labels = instance(4, encoders=3, widths=(16, 16, 16))
    f_labels = np.array([standardised(text[labels], 1e-8) for text in texts])
    x, (encoders, count, width) = standardised(images, 1e-8), f_labels.shape
    fitted = x @ np.linalg.lstsq(x, f_labels.mean(axis=0), rcond=None)[0]
    free = np.linalg.lstsq(f_labels.reshape(encoders, -1).T, fitted.ravel(), rcond=None)[0]
    target = np.tensordot(sparsemax(free), f_labels, 1)
    expected = -((fitted - target) ** 2).sum() / count * width
    sample = Sample(images, texts[0], labels, text_features=tuple(texts))
    assert METRIC.score(sample, as_released=True) == pytest.approx(expected, rel=1e-8)
    assert METRIC.score(sample) == pytest.approx(emms(images, texts[0], labels, *texts[1:]), rel=1e-12)


def test_as_released_is_larger_by_the_squared_width_for_one_encoder():
    images, texts, labels = instance(5)
    sample = Sample(images, texts[0], labels)
    assert METRIC.score(sample, as_released=True) == pytest.approx(16**2 * METRIC.score(sample), rel=1e-5)


def test_encoders_named_take_the_place_of_the_images_own():
    images, texts, labels = instance(6, encoders=2, widths=(16, 16))
    named = Sample(images, texts[0], labels, text_features=(texts[1],))
    assert METRIC.score(named) == pytest.approx(emms(images, texts[1], labels), rel=1e-12)


@pytest.mark.parametrize("change", ["rotation", "scale", "shift"])
def test_an_invertible_map_of_the_images_changes_nothing(change):
    images, texts, labels = instance(7)
    changed = {"rotation": images @ ortho_group.rvs(16, random_state=0), "scale": images * np.arange(1, 17), "shift": images + 3}[change]
    assert emms(changed, texts[0], labels) == pytest.approx(emms(images, texts[0], labels), rel=1e-8)


def test_order_repetition_and_empty_classes_change_nothing():
    images, (texts,), labels = instance(8)
    expected, order = emms(images, texts, labels), np.random.default_rng(0).permutation(len(images))
    assert emms(images[order], texts, labels[order]) == pytest.approx(expected, rel=1e-10)
    assert emms(np.tile(images, (3, 1)), texts, np.tile(labels, 3)) == pytest.approx(expected, rel=1e-10)
    assert emms(images, np.concatenate([texts, [[5.0] * 16]]), labels) == pytest.approx(expected, rel=1e-10)


def test_no_more_images_than_dimensions_explain_everything():
    images, (texts,), labels = instance(9, images=12, dimensions=40)
    assert emms(images, texts, labels) == pytest.approx(0.0, abs=1e-12)


def test_images_of_a_class_equal():
    _, (texts,), labels = instance(10)
    means = pairs.random_instance(99, images=5)[0]
    assert emms(means[labels], texts, labels) == pytest.approx(0.0, abs=1e-12)


def test_all_images_equal_explain_nothing():
    images, (texts,), labels = instance(11)
    assert emms(np.tile(images[:1], (40, 1)), texts, labels) == pytest.approx(-1.0)


def test_images_that_have_nothing_to_do_with_the_labels():
    images, (texts,), _ = instance(12)
    labels = np.repeat([0, 1], 40)
    assert emms(np.tile(images, (2, 1)), texts, labels) == pytest.approx(-1.0)


def test_a_dimension_in_which_all_texts_agree_counts_as_explained():
    images, (texts,), labels = instance(13)
    more = np.concatenate([texts, np.full((5, 16), 0.3)], axis=1)
    assert emms(images, texts, labels, more) > emms(images, texts, labels)
    sample = Sample(images, texts, labels, text_features=(more,))
    assert METRIC.score(sample) == pytest.approx(emms(images, texts, labels) / 2, rel=1e-10)


def test_weights_on_a_grid_are_no_better():
    generator = np.random.default_rng(0)
    for _ in range(20):
        factor = generator.standard_normal((generator.integers(1, 5), 3))
        matrix = factor.T @ factor
        weights = simplex_minimum(matrix)
        assert weights.sum() == pytest.approx(1.0)
        assert weights.min() >= 0
        grid = [np.array([a, b, 20 - a - b]) / 20 for a, b in itertools.product(range(21), repeat=2) if a + b <= 20]
        assert weights @ matrix @ weights <= min(t @ matrix @ t for t in grid) + 1e-12


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    generator = np.random.default_rng(1)
    for _ in range(20):
        scores = generator.standard_normal(3)
        nearest = sparsemax(scores)
        assert nearest.sum() == pytest.approx(1.0)
        others = generator.dirichlet(np.ones(3), 200)
        assert np.linalg.norm(nearest - scores) <= np.linalg.norm(others - scores, axis=1).min() + 1e-12


def test_one_class():
    images, (texts,), _ = instance(14)
    with pytest.raises(MetricError, match="emms is undefined for 1 class with images; it needs at least 2"):
        emms(images, texts, np.zeros(40, int))


def test_texts_all_equal():
    images, (texts,), labels = instance(15)
    with pytest.raises(MetricError, match="the text embeddings of all classes with images are equal"):
        emms(images, np.tile(texts[:1], (5, 1)), labels)


def test_features_of_other_classes():
    images, (texts,), labels = instance(16)
    with pytest.raises(MetricError, match="text_features have 4 rows but there are 5 classes"):
        emms(images, texts, labels, texts[:4])


def test_features_that_are_not_finite():
    images, (texts,), labels = instance(17)
    with pytest.raises(MetricError, match="text_features have a value that is not finite"):
        emms(images, texts, labels, np.where(np.eye(5, 16) > 0, np.nan, texts))


def test_leaves_its_input_as_it_was():
    images, (texts,), labels = instance(18)
    for value in (images, texts, labels):
        value.setflags(write=False)
    sample = Sample(images, texts, labels)
    METRIC.score(sample)
    METRIC.score(sample, as_released=True)
