"""Every closed form of the jackknife against measuring again without each image."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import jackknife
from metrics.jackknife import LEFT_OUT, JackknifeError, jackknife_error
from metrics.sample import Sample, SampleOfWhole
from metrics.statistics import MetricError
from metrics.table import METRICS
from tests.metrics import pairs

GEOMETRY = sorted(set(LEFT_OUT) - {"between_within_ratio"})  # the ratio of two sums is relative, and needs images that differ

INSTANCES = st.builds(
    pairs.random_instance,
    st.integers(0, 2**32 - 1),
    images=st.integers(3, 60),
    classes=st.integers(2, 8),
    dimensions=st.integers(1, 20),
    empty=st.integers(0, 6),
    spread=st.sampled_from([0.01, 1.0, 100.0]),
)


def again(name, images, texts, labels):
    """The public measure of all images but one, for each; None where it is undefined without one of them."""
    try:
        return np.array([METRICS[name](np.delete(images, i, 0), texts, np.delete(labels, i)) for i in range(len(images))])
    except MetricError:
        return None


def check(name, instance, tolerance):
    expected = again(name, *instance)
    if expected is None:
        with pytest.raises(MetricError, match=f"standard error of {name} is undefined"):
            LEFT_OUT[name](Sample(*instance))
        return
    found = LEFT_OUT[name](Sample(*instance))
    np.testing.assert_allclose(found, expected, **tolerance)
    count, mean = len(expected), expected.mean()
    assert jackknife_error(found) == pytest.approx(np.sqrt((count - 1) / count * ((expected - mean) ** 2).sum()), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("name", GEOMETRY)
@settings(max_examples=20, deadline=None)
@given(instance=INSTANCES)
def test_equals_the_measure_without_each_image(name, instance):
    check(name, instance, {"rtol": 0, "atol": 1e-10})


@pytest.mark.parametrize("seed", range(8))
def test_between_within_ratio_without_each_image(seed):
    check("between_within_ratio", pairs.random_instance(seed, images=12 + 6 * seed, empty=seed % 3), {"rtol": 1e-10})


@pytest.mark.parametrize("name", LEFT_OUT)
def test_more_images_than_fit_a_block(name, monkeypatch):
    sample = Sample(*pairs.random_instance(3, images=101))
    expected = LEFT_OUT[name](sample)
    monkeypatch.setattr("metrics.statistics.BLOCK_VALUES", 16 * 7)
    np.testing.assert_allclose(LEFT_OUT[name](Sample(*pairs.random_instance(3, images=101))), expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_rows_that_are_unit_only_as_stored(name, dtype):
    images, texts, labels = pairs.random_instance(4, spread=0.3)
    check(name, (images.astype(dtype), texts.astype(dtype), labels), {"rtol": 0, "atol": 1e-10})


def test_of_a_mean_it_is_its_usual_standard_error():
    images, texts, labels = pairs.random_instance(5)
    cosines = np.einsum("nd,nd->n", images, texts[labels])
    found = jackknife_error(LEFT_OUT["alignment"](Sample(images, texts, labels)))
    assert found == pytest.approx(cosines.std(ddof=1) / np.sqrt(len(cosines)), rel=1e-12)


def test_images_without_texts_or_labels():
    images, texts, labels = pairs.random_instance(6)
    for name in ("image_image", "total_variance"):
        np.testing.assert_allclose(LEFT_OUT[name](Sample(images)), LEFT_OUT[name](Sample(images, texts, labels)), rtol=1e-13)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_too_few_images(name):
    images, texts, labels = pairs.random_instance(7)
    least = 3 if name in ("iimm", "image_image", "between_within_ratio") else 2
    with pytest.raises(MetricError, match=f"standard error of {name} is undefined"):
        LEFT_OUT[name](Sample(images[: least - 1], texts, labels[: least - 1]))


def test_uniformity_text_with_one_image_of_another_class():
    images, texts, _ = pairs.random_instance(8, images=6)
    assert METRICS["uniformity_text"](images, texts, np.array([0, 0, 0, 0, 0, 1])) is not None
    with pytest.raises(MetricError, match="all images but one are of one class"):
        LEFT_OUT["uniformity_text"](Sample(images, texts, np.array([0, 0, 0, 0, 0, 1])))


def test_it_covers_the_true_spread():
    """Of 400 samples of one population, the standard deviation of IIMM is what one sample's standard error says."""
    drawn = np.random.default_rng(0)
    texts, centres = pairs.unit(drawn.standard_normal((4, 8))), drawn.standard_normal((4, 8))

    def sample():
        labels = drawn.integers(0, 4, 100)
        return Sample(pairs.unit(centres[labels] + drawn.standard_normal((100, 8))), texts, labels)

    samples = [sample() for _ in range(400)]
    errors = [jackknife_error(LEFT_OUT["iimm"](of)) for of in samples[:50]]
    assert np.mean(errors) == pytest.approx(np.std([METRICS["iimm"].score(of) for of in samples]), rel=0.15)


def test_examples_in_docstrings():
    result = doctest.testmod(jackknife)
    assert result.attempted > 0
    assert result.failed == 0


@given(INSTANCES, st.integers(1, 5), st.sampled_from(GEOMETRY))
@settings(max_examples=30, deadline=None)
def test_from_parts_of_the_images_and_the_sums_of_all(instance, parts, name):
    """Nothing but the sums of the whole, and one part of the images at a time."""
    sample, error = Sample(*instance), JackknifeError()
    try:
        expected = jackknife_error(LEFT_OUT[name](sample))
    except MetricError:
        return
    for rows in np.array_split(np.arange(len(sample)), parts):
        images, labels = sample.images[rows], sample.known_labels[rows]
        error.add(LEFT_OUT[name](SampleOfWhole(images, sample.texts, labels, whole=sample.image_sums)))
    assert error.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
