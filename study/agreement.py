"""Do scores put tasks (or models) in the order of their outcomes? Kendall's tau, plain and weighted, with its uncertainty.

With n = 9 tasks one swapped pair moves tau by 0.056, so tau never stands alone here: it has an interval from resampling
the points, and the plain one an exact p-value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from study.regression import Float64, checked_pair

EXACT_WITH_TIES = 8  # 8! = 40,320 orders are counted in a moment, 10! are not
EXACT_WITHOUT_TIES = 170  # as far as SciPy's recursion goes


@dataclass(frozen=True)
class PValue:
    """A p-value and whether it is exact or the normal approximation."""

    value: float
    exact: bool


@dataclass(frozen=True)
class Bootstrap:
    """A percentile interval; ``undefined`` of the ``resamples`` had no value and do not count; no ends when none had one."""

    low: float | None
    high: float | None
    resamples: int
    undefined: int


@dataclass(frozen=True)
class Agreement:
    """How a score agrees with an outcome over n points."""

    n: int
    tau: float
    tau_interval: Bootstrap
    tau_p: PValue
    weighted_tau: float
    weighted_tau_interval: Bootstrap


def agreement(x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> Agreement:
    """Both taus of scores x [n] and outcomes y [n], with percentile intervals over the points.

    Raises UndefinedError for n < 3, values that are not finite, and when all x or all y are the same. The intervals depend on
    the points and the seed, not on the order in which the points come.
    """
    x, y = in_order(*checked_pair(x, y, least=3))
    counts = resampled_counts(len(x), resamples, seed)
    return Agreement(
        n=len(x),
        tau=kendall_tau(x, y),
        tau_interval=percentile_interval(resampled_tau(x, y, counts), level),
        tau_p=kendall_p(x, y),
        weighted_tau=weighted_kendall_tau(x, y),
        weighted_tau_interval=percentile_interval(resampled_weighted_tau(x, y, counts), level),
    )


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """tau-b = (concordant - discordant) / sqrt((pairs untied in x) (pairs untied in y)), in [-1, 1] (Kendall 1945).

    >>> round(kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]), 6)
    0.666667
    """
    return float(stats.kendalltau(x, y, variant="b").statistic)


def weighted_kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau in which a pair weighs 1/(r+1) + 1/(s+1), r and s its ranks from the top (0 is the greatest).

    The top matters most, as when one picks a model. The mean of ranking by x and ranking by y: Vigna (WWW 2015), the
    ``scipy.stats.weightedtau`` that the LogME and SFDA papers report.
    """
    return float(stats.weightedtau(x, y).statistic)


def kendall_p(x: ArrayLike, y: ArrayLike) -> PValue:
    """Two-sided p-value of "the order of y has nothing to do with that of x": the share of orders with |tau| as great.

    Exact without ties (for up to 170 points), and with ties for up to 8, where every order is counted; else the normal
    approximation.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    tied = len(np.unique(x)) < len(x) or len(np.unique(y)) < len(y)
    if tied and len(x) <= EXACT_WITH_TIES:
        return PValue(_share_of_orders(x, y), exact=True)
    exact = not tied and len(x) <= EXACT_WITHOUT_TIES
    return PValue(float(stats.kendalltau(x, y, method="exact" if exact else "asymptotic").pvalue), exact)


def _share_of_orders(x: Float64, y: Float64) -> float:
    """The share of the n! orders of y whose |concordant - discordant| is at least that of the order at hand."""
    first, second = np.triu_indices(len(x), 1)
    signs = np.sign(x[first] - x[second])

    def score(values: Float64, axis: int = -1) -> Float64:
        return np.abs(np.sign(values[..., first] - values[..., second]) @ signs)

    orders = stats.permutation_test(
        (y,), score, permutation_type="pairings", vectorized=True, n_resamples=np.inf, alternative="greater", batch=5040
    )
    return float(orders.pvalue)


def in_order(x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """The points sorted by x, then y, so that what is drawn for the i-th does not depend on the table's order."""
    order = np.lexsort((y, x))
    return x[order], y[order]


def resampled_counts(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each of n points is in each bootstrap resample, [resamples, n]; rows sum to n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def resampled_tau(x: Float64, y: Float64, counts: NDArray[np.int64]) -> Float64:
    """tau-b of each resample, [resamples]; NaN where all its points have the same x or the same y.

    A pair (i, j) occurs count_i count_j times; copies of one point tie with each other and fall out of tau-b.
    """
    return _tau_of_pairs(x, y, counts.astype(np.float64), counts)


def resampled_weighted_tau(x: Float64, y: Float64, counts: NDArray[np.int64]) -> Float64:
    """:func:`weighted_kendall_tau` of each resample, [resamples]; NaN as in :func:`resampled_tau`.

    The copies of a point hold consecutive ranks; what counts is the sum of their weights 1/(rank + 1).
    """
    by_x = _tau_of_pairs(x, y, _rank_weights(np.lexsort((y, x))[::-1], counts), counts)
    by_y = _tau_of_pairs(x, y, _rank_weights(np.lexsort((x, y))[::-1], counts), counts)
    return (by_x + by_y) / 2


def _rank_weights(order: NDArray[np.int64], counts: NDArray[np.int64]) -> Float64:
    """For each resample and point, the sum of 1/(rank + 1) over its copies when points are ranked in ``order``."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, counts.shape[1] + 1))])
    ends = np.cumsum(counts[:, order], axis=1)
    weights = np.empty(counts.shape)
    weights[:, order] = harmonic[ends] - harmonic[ends - counts[:, order]]
    return weights


def _tau_of_pairs(x: Float64, y: Float64, weights: Float64, counts: NDArray[np.int64]) -> Float64:
    """sum_ij w_i c_j sx_ij sy_ij / sqrt(sum_ij w_i c_j |sx_ij| sum_ij w_i c_j |sy_ij|), s the signs of the differences."""
    signs_x, signs_y = (np.sign(values[:, None] - values[None, :]) for values in (x, y))

    def total(of_pairs: Float64) -> Float64:
        return np.einsum("bi,bi->b", weights @ of_pairs, counts)

    untied = total(np.abs(signs_x)) * total(np.abs(signs_y))
    with np.errstate(invalid="ignore"):
        return np.where(untied > 0, total(signs_x * signs_y) / np.sqrt(untied), np.nan).clip(-1, 1)


def resampled_r2(x: Float64, y: Float64, counts: NDArray[np.int64]) -> Float64:
    """The squared correlation of each resample, [resamples]; NaN where all its points have the same x or the same y."""
    share = counts / counts.sum(axis=1, keepdims=True)
    x, y = x - x.mean(), y - y.mean()
    mean_x, mean_y = share @ x, share @ y
    variances = (share @ x**2 - mean_x**2) * (share @ y**2 - mean_y**2)
    distinct = (_spread(x, counts) > 0) & (_spread(y, counts) > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(distinct, (share @ (x * y) - mean_x * mean_y) ** 2 / variances, np.nan).clip(0, 1)


def _spread(values: Float64, counts: NDArray[np.int64]) -> Float64:
    """Largest minus smallest value in each resample; exactly 0 where there is but one."""
    drawn = np.where(counts > 0, values, np.nan)
    return np.nanmax(drawn, axis=1) - np.nanmin(drawn, axis=1)


def percentile_interval(values: Float64, level: float) -> Bootstrap:
    """The middle ``level`` of the values that are defined (Efron's percentile interval)."""
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if not len(defined):
        return Bootstrap(None, None, len(values), undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Bootstrap(float(low), float(high), len(values), undefined)
