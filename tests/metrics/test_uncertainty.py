"""Which interval a score gets, and that it is that of the plain algorithm."""

import doctest
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from metrics import uncertainty as module
from metrics.jackknife import LEFT_OUT, jackknife_error
from metrics.metric import TRANSFERABILITY, WITHOUT_TEXT, Metric
from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.table import METRICS
from metrics.uncertainty import BOOTSTRAP, JACKKNIFE, NONE, standard_error_of, uncertainties, uncertainty
from tests.metrics import pairs

NO_INTERVAL = {"text_text"}  # over images


@pytest.fixture
def sample():
    return Sample(*pairs.random_instance(1, images=60, classes=4))


def resamples(sample, count, seed):
    for number in range(count):
        chosen = np.random.default_rng([seed, number]).integers(0, len(sample), len(sample))
        yield sample.images[chosen], sample.texts, sample.labels[chosen]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_closed_form_with_a_normal_interval(name, sample):
    of = uncertainty(METRICS[name], sample, bootstrap=5)
    error, score = jackknife_error(LEFT_OUT[name](sample)), METRICS[name].score(sample)
    assert (of.method, of.note, of.stderr) == (JACKKNIFE, "", error)
    assert (of.low, of.high) == pytest.approx((score - 1.959963984540054 * error, score + 1.959963984540054 * error), rel=1e-12)
    assert pytest.approx(NormalDist().inv_cdf(0.975)) == module.Z


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_measure_has_a_closed_form_or_says_whether_it_can_be_resampled(metric):
    """Those that copies of an image would change have ``bootstrap=False`` or a closed form of their own."""
    closed = standard_error_of(metric) is not None
    assert closed or metric.bootstrap or metric.name in NO_INTERVAL
    assert closed or metric.name not in ("image_image", "iimm", "overlap", "auroc", "parc", "knn", "linear_probe")


@pytest.mark.parametrize("name", ["hscore", "gbc_diagonal", "leep"])
def test_the_bootstrap(name, sample):
    of = uncertainty(METRICS[name], sample, bootstrap=40, seed=3)
    values = [METRICS[name](*resample) for resample in resamples(sample, 40, 3)]
    assert (of.method, of.note) == (BOOTSTRAP, "")
    assert of.stderr == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    score = METRICS[name].score(sample)
    assert (of.low, of.high) == pytest.approx((score - 1.959963984540054 * of.stderr, score + 1.959963984540054 * of.stderr), rel=1e-9)


def test_the_seed_decides_and_company_does_not(sample):
    names = ["hscore", "gap", "gbc_spherical"]
    together = uncertainties([METRICS[name] for name in names], sample, bootstrap=10, seed=4)
    assert together == [uncertainty(METRICS[name], sample, bootstrap=10, seed=4) for name in names]
    assert together[0] != uncertainty(METRICS["hscore"], sample, bootstrap=10, seed=5)


@pytest.mark.parametrize("bootstrap", [0, 1])
def test_without_resamples_there_is_none_and_it_says_so(sample, bootstrap):
    of = uncertainty(METRICS["hscore"], sample, bootstrap=bootstrap)
    assert of == (None, None, None, NONE, "no closed form; --bootstrap N resamples the images")


def test_a_released_variant_is_resampled_itself(sample):
    metric = METRICS["gbc_spherical"]
    of = uncertainty(metric, sample, bootstrap=10, as_released=True)
    values = [metric.as_released(Sample(*resample)) for resample in resamples(sample, 10, 0)]
    assert of.stderr == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert of != uncertainty(metric, sample, bootstrap=10)


def test_the_closed_form_is_not_that_of_a_released_variant(sample):
    metric = replace(METRICS["alignment"], as_released=lambda sample: 2 * METRICS["alignment"].score(sample))
    assert uncertainty(metric, sample).method == JACKKNIFE
    assert uncertainty(metric, sample, as_released=True).method == NONE
    released = uncertainty(metric, sample, bootstrap=200, as_released=True)
    assert released.stderr == pytest.approx(2 * uncertainty(metric, sample).stderr, rel=0.2)


def test_what_copies_would_change_is_never_resampled(sample):
    metric = replace(METRICS["hscore"], bootstrap=False)
    assert uncertainty(metric, sample, bootstrap=10) == (
        None,
        None,
        None,
        NONE,
        "copies of an image in a resample would change hscore itself",
    )


def counting(undefined):
    """A measure that is undefined in the resamples of which ``undefined`` is true."""
    seen = []

    def function(sample):
        seen.append(sample)
        if undefined(len(seen) - 1):
            raise MetricError("undefined")
        return float(len(seen))

    return Metric("x", "", function, function, "", TRANSFERABILITY, invariances=WITHOUT_TEXT)


def test_undefined_resamples_are_drawn_again_and_counted(sample):
    of = uncertainty(counting(lambda number: number in (0, 3)), sample, bootstrap=4)
    assert of.method == BOOTSTRAP
    assert of.note == "2 resamples of which it is undefined were drawn again"
    assert of.stderr == pytest.approx(np.std([2, 3, 5, 6], ddof=1))


def test_not_without_end(sample):
    of = uncertainty(counting(lambda number: number % 3), sample, bootstrap=4)
    assert of == (None, None, None, NONE, "undefined for 5 of 8 resamples")


def test_a_class_that_vanishes_from_a_resample_is_one_without_images():
    """One image of class 2: about a third of the resamples have none; H-score is that of the others."""
    images, texts, labels = pairs.random_instance(2, images=40, classes=3)
    labels = np.r_[np.arange(39) % 2, 2]
    sample = Sample(images, texts, labels)
    gone = [2 not in resample[2] for resample in resamples(sample, 30, 0)]
    assert 0 < sum(gone) < 30
    assert uncertainty(METRICS["hscore"], sample, bootstrap=30).note == ""


def test_a_score_without_a_standard_error_is_no_failure():
    sample = Sample(*pairs.random_instance(9, images=2))
    assert np.isfinite(METRICS["iimm"].score(sample))
    of = uncertainty(METRICS["iimm"], sample)
    assert of == (None, None, None, NONE, "the standard error of iimm is undefined for 2 images; it needs at least 3.")


def test_the_jackknife_agrees_with_the_bootstrap_where_both_hold(sample):
    open_form = replace(METRICS["gap"], name="another")  # the name is what the closed form is found by
    assert uncertainty(METRICS["gap"], sample).stderr == pytest.approx(uncertainty(open_form, sample, bootstrap=400).stderr, rel=0.15)


def test_examples_in_docstrings():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
