"""How far a score would move if other images of the same kind had been drawn: its standard error and 95 % interval.

Images are what is sampled; class texts are fixed. Two ways, by what the measure allows:

- ``jackknife``: a closed form for the standard error, exact delete-one for the measures of :data:`metrics.jackknife.LEFT_OUT`,
  else what the measure's entry in the table has (the infinitesimal jackknife of measures of pairs, the binomial error of
  accuracies). The interval is normal: score +- 1.96 standard errors. It is not cut off where the measure's range ends.
- ``bootstrap``: the measure of B resamples of N images drawn with replacement. The standard error is their standard deviation, the
  interval is normal around the score. Resamples are plain, not stratified: a class may vanish from one, and counts there
  as a class without images. A resample of which the measure is undefined is drawn again.

A resample holds copies of the same image. Measures over pairs of images would count an image's cosine of 1 with itself
(image_image, IIMM), and nearest neighbours or held-out folds would find it again; so these have closed forms or no interval, and are
never resampled. Measures of the features' rank or spread (H-score, LogME, TransRate) are moved as well, by the fewer distinct
images (about 63 %): their percentiles may lie wholly off the score where N is not large against D, their spread is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from metrics.jackknife import LEFT_OUT, jackknife_error
from metrics.metric import Metric
from metrics.sample import Sample
from metrics.statistics import MetricError

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
JACKKNIFE, BOOTSTRAP, NONE = "jackknife", "bootstrap", "none"


class Uncertainty(NamedTuple):
    """Standard error and 95 % interval of a score; all None when ``method`` is ``none``, and ``note`` says why."""

    stderr: float | None
    low: float | None
    high: float | None
    method: str
    note: str = ""


def uncertainty(metric: Metric, sample: Sample, bootstrap: int = 0, seed: int = 0, as_released: bool = False) -> Uncertainty:
    """The uncertainty of ``metric.score(sample, as_released)``.

    A closed form where there is one; else, with ``bootstrap`` (2 or more) resamples, that; else none. The closed forms are of the
    definition, so a released variant that differs is resampled. Never raises MetricError: a score may be defined where its standard
    error is not, and then ``note`` says so.

    >>> from metrics.table import METRICS
    >>> sample = Sample(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), np.eye(2), np.array([0, 0, 1]))
    >>> [round(number, 4) for number in uncertainty(METRICS["alignment"], sample)[:3]]
    [0.1333, 0.6053, 1.128]
    >>> uncertainty(METRICS["text_text"], sample)
    Uncertainty(stderr=None, low=None, high=None, method='none', note='text_text does not depend on the images')
    """
    return uncertainties([metric], sample, bootstrap, seed, as_released)[0]


def uncertainties(
    metrics: Sequence[Metric], sample: Sample, bootstrap: int = 0, seed: int = 0, as_released: bool = False
) -> list[Uncertainty]:
    """:func:`uncertainty` of each measure. All are taken of the same resamples, whose sums they share."""
    closed = [_closed_form(metric, sample, as_released) for metric in metrics]
    open_ones = [metric for metric, of in zip(metrics, closed, strict=True) if of is None]
    resampled = iter(_bootstrap(open_ones, sample, bootstrap, seed, as_released))
    return [of if of is not None else next(resampled) for of in closed]


def standard_error_of(metric: Metric) -> Callable[[Sample], float] | None:
    """The closed form of a measure's standard error, or None."""
    if metric.standard_error is None and metric.name in LEFT_OUT:
        return lambda sample: jackknife_error(LEFT_OUT[metric.name](sample))
    return metric.standard_error


def _closed_form(metric: Metric, sample: Sample, as_released: bool) -> Uncertainty | None:
    """Without resampling: an interval, or that there is none; None when the measure can be resampled."""
    if not metric.needs_images:
        return without_interval(f"{metric.name} does not depend on the images")
    standard_error = standard_error_of(metric)
    if standard_error is None or (as_released and metric.as_released is not None):
        return None if metric.bootstrap else without_interval(f"copies of an image in a resample would change {metric.name} itself")
    try:
        return normal_interval(metric.score(sample), standard_error(sample))
    except MetricError as error:
        return without_interval(str(error))


def normal_interval(score: float, stderr: float) -> Uncertainty:
    """The score with an interval from a closed form: score +- 1.96 standard errors."""
    return Uncertainty(stderr, score - Z * stderr, score + Z * stderr, JACKKNIFE)


def without_interval(why: str) -> Uncertainty:
    """No interval, and why there is none."""
    return Uncertainty(None, None, None, NONE, why)


def _bootstrap(metrics: Sequence[Metric], sample: Sample, count: int, seed: int, as_released: bool) -> list[Uncertainty]:
    """The bootstrap of several measures; each takes the first ``count`` resamples of which it is defined, of twice as many."""
    if count < 2 or not metrics:
        return [without_interval("no closed form; --bootstrap N resamples the images") for _ in metrics]
    drawn: list[list[float]] = [[] for _ in metrics]
    redrawn = [0] * len(metrics)
    for resample in _resamples(sample, 2 * count, seed):
        wanting = [number for number, values in enumerate(drawn) if len(values) < count]
        for number in wanting:
            value = _score_or_nan(metrics[number], resample, as_released)
            if np.isfinite(value):
                drawn[number].append(value)
            else:
                redrawn[number] += 1
        if not wanting:
            break
    return [
        _around(_score_or_nan(metric, sample, as_released), np.array(values), count, again)
        for metric, values, again in zip(metrics, drawn, redrawn, strict=True)
    ]


def _resamples(sample: Sample, count: int, seed: int) -> Iterator[Sample]:
    """Seeded resamples of the images; resample r is the same however many there are."""
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        yield sample.subset(np.sort(generator.integers(0, len(sample), len(sample))))


def _score_or_nan(metric: Metric, sample: Sample, as_released: bool) -> float:
    try:
        return metric.score(sample, as_released)
    except MetricError:
        return np.nan


def _around(score: float, values: np.ndarray, count: int, redrawn: int) -> Uncertainty:
    if len(values) < count:
        return without_interval(f"undefined for {redrawn} of {redrawn + len(values)} resamples")
    note = f"{redrawn} resamples of which it is undefined were drawn again" if redrawn else ""
    return normal_interval(score, float(values.std(ddof=1)))._replace(method=BOOTSTRAP, note=note)
