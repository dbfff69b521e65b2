"""The line against SciPy, NumPy, a hand-computed example, refitting loops and simulation."""

import numpy as np
import pytest
from scipy import stats

from study.regression import UndefinedError, fit, leave_one_out_of_mean

SIZES = (3, 4, 9, 40)


def noisy(n, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(0.3, 0.1, n)
    return x, 2 * x - 0.1 + generator.normal(0, 0.05, n)


@pytest.mark.parametrize("n", SIZES)
def test_meets_scipy_and_numpy(n):
    x, y = noisy(n)
    line, other = fit(x, y), stats.linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((other.slope, other.intercept), rel=1e-10)
    assert (line.slope_stderr, line.intercept_stderr) == pytest.approx((other.stderr, other.intercept_stderr), rel=1e-9)
    assert (line.r2, line.p) == pytest.approx((other.rvalue**2, other.pvalue), rel=1e-9)
    assert np.polyfit(x, y, 1) == pytest.approx([line.slope, line.intercept], rel=1e-9)


def test_an_example_computed_by_hand():
    """x = 1..4, y = 2, 4, 5, 8: Sxx = 5, Sxy = 9.5, residuals .1, .2, -.7, .4, sum of squares .7, Syy = 18.75."""
    line = fit([1, 2, 3, 4], [2, 4, 5, 8])
    assert (line.slope, line.intercept) == pytest.approx((1.9, 0.0), abs=1e-12)
    assert line.residuals == pytest.approx([0.1, 0.2, -0.7, 0.4])
    assert line.r2 == pytest.approx(1 - 0.7 / 18.75)
    assert line.slope_stderr**2 == pytest.approx(0.35 / 5)
    assert line.intercept_stderr**2 == pytest.approx(0.35 * (1 / 4 + 2.5**2 / 5))
    t = 4.302652729911275  # two degrees of freedom, 97.5 %
    low, high = line.confidence_band(5.0)
    assert (float(low), float(high)) == pytest.approx((9.5 - t * (0.35 * 1.5) ** 0.5, 9.5 + t * (0.35 * 1.5) ** 0.5))
    low, high = line.prediction_interval(5.0)
    assert (float(low), float(high)) == pytest.approx((9.5 - t * (0.35 * 2.5) ** 0.5, 9.5 + t * (0.35 * 2.5) ** 0.5))


def test_a_wider_level_gives_a_wider_interval():
    line = fit(*noisy(9))
    widths = [float(np.subtract(*line.prediction_interval(0.3, level)[::-1])) for level in (0.5, 0.95, 0.99)]
    assert widths == sorted(widths)
    assert widths[2] / widths[1] == pytest.approx(stats.t.ppf(0.995, 7) / stats.t.ppf(0.975, 7))


@pytest.mark.parametrize("n", SIZES)
def test_leave_one_out_is_refitting(n):
    x, y = noisy(n, seed=n)
    refitted = [y[i] - fit_without(x, y, i)(x[i]) for i in range(n)]
    assert np.abs(fit(x, y).leave_one_out_residuals() - refitted).max() < 1e-10
    assert leave_one_out_of_mean(y) == pytest.approx([y[i] - np.delete(y, i).mean() for i in range(n)], abs=1e-12)


def fit_without(x, y, index):
    return np.poly1d(np.polyfit(np.delete(x, index), np.delete(y, index), 1))


@pytest.mark.parametrize("n", [3, 9])
def test_intervals_cover_what_they_say(n):
    """4,000 simulated tables: the 95 % intervals hold a new point, and the true line, in 95 % +- 1.4 % (4 standard errors)."""
    generator = np.random.default_rng(7)
    x, new, held, line_held = np.linspace(0.2, 0.6, n), 0.65, 0, 0
    for _ in range(4000):
        line = fit(x, 1 + 2 * x + generator.normal(0, 0.1, n))
        low, high = line.prediction_interval(new)
        held += low <= 1 + 2 * new + generator.normal(0, 0.1) <= high
        low, high = line.confidence_band(new)
        line_held += low <= 1 + 2 * new <= high
    assert held / 4000 == pytest.approx(0.95, abs=0.014)
    assert line_held / 4000 == pytest.approx(0.95, abs=0.014)


def test_points_on_a_line():
    line = fit([0, 1, 2], [0, 1, 2])
    assert (line.r2, line.p, line.residual_stderr) == (1, 0, 0)


def test_shifts_and_scales():
    """A far-off origin costs no accuracy: sums of squares are taken around the mean."""
    x, y = noisy(9)
    assert fit(x + 1e6, y).slope == pytest.approx(fit(x, y).slope, rel=1e-6)
    assert fit(1000 * x, y).r2 == pytest.approx(fit(x, y).r2)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2], [1, 2], "only 2 points, at least 3"),
        ([1], [1], "only 1 point, "),
        ([0.3, 0.3, 0.3], [1, 2, 3], "all scores are the same (0.3)"),
        ([0.1 + 0.2, 0.3, 0.3], [1, 2, 3], "all scores are the same"),
        ([1, 2, 3], [0, 0, 0], "all outcomes are the same (0)"),
        ([1, 2, float("nan")], [1, 2, 3], "scores are not all finite"),
        ([1, 2, 3], [1, 2, float("inf")], "outcomes are not all finite"),
    ],
)
def test_undefined(x, y, words):
    with pytest.raises(UndefinedError) as raised:
        fit(x, y)
    assert words in str(raised.value)


def test_leave_one_out_without_a_line():
    with pytest.raises(UndefinedError, match=r"all points but the one at 5 have the same score"):
        fit([1, 1, 1, 5], [1, 2, 3, 4]).leave_one_out_residuals()


def test_different_lengths_are_a_defect():
    with pytest.raises(ValueError, match="one length"):
        fit([1, 2, 3], [1, 2])
