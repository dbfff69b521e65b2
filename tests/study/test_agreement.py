"""Kendall's tau against counting pairs, SciPy and full enumeration; the bootstrap against resampling for real."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from study import agreement as module
from study.agreement import (
    agreement,
    in_order,
    kendall_p,
    kendall_tau,
    percentile_interval,
    resampled_counts,
    resampled_r2,
    resampled_tau,
    resampled_weighted_tau,
    weighted_kendall_tau,
)
from study.regression import UndefinedError


def drawn(n, seed, values=None):
    generator = np.random.default_rng(seed)
    pair = generator.integers(0, values, (2, n)) if values else generator.random((2, n))
    return pair.astype(float)


def tau_by_pairs(x, y):
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    return sum(a * b for a, b in signs) / math.sqrt(untied)


def weighted_tau_by_pairs(x, y):
    """Vigna's definition, for values without ties."""

    def ranked_by(values):
        rank = np.argsort(np.argsort(-values))
        weight = {(i, j): 1 / (rank[i] + 1) + 1 / (rank[j] + 1) for i, j in combinations(range(len(x)), 2)}
        agreeing = sum(w * np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for (i, j), w in weight.items())
        return agreeing / sum(weight.values())

    return (ranked_by(x) + ranked_by(y)) / 2


@pytest.mark.parametrize("values", [None, 4])
@pytest.mark.parametrize("n", [3, 9, 15])
def test_tau_counts_pairs(n, values):
    x, y = drawn(n, n + 1, values)
    assert kendall_tau(x, y) == pytest.approx(tau_by_pairs(x, y), abs=1e-12)


@pytest.mark.parametrize("n", [3, 9])
def test_weighted_tau_weighs_pairs_by_rank(n):
    x, y = drawn(n, n)
    assert weighted_kendall_tau(x, y) == pytest.approx(weighted_tau_by_pairs(x, y), abs=1e-12)


def test_one_swap_among_nine_is_worth_one_eighteenth():
    """Why the published taus over nine tasks are multiples of 1/18."""
    order = np.arange(9.0)
    assert kendall_tau(order, order[[1, 0, *range(2, 9)]]) == pytest.approx(1 - 1 / 18)


@pytest.mark.parametrize(("n", "values"), [(4, None), (6, None), (5, 3), (6, 3), (6, 2)])
def test_p_counts_every_order(n, values):
    x, y = drawn(n, 3, values)
    score = abs(tau_by_pairs(x, y)) - 1e-12
    orders = [abs(tau_by_pairs(x, np.asarray(order))) >= score for order in permutations(y)]
    p = kendall_p(x, y)
    assert p.exact
    assert p.value == pytest.approx(np.mean(orders), abs=1e-12)


def test_p_without_ties_is_scipys_exact_one():
    x, y = drawn(40, 0)
    assert kendall_p(x, y) == module.PValue(stats.kendalltau(x, y, method="exact").pvalue, exact=True)


def test_p_with_many_ties_is_an_approximation_and_says_so():
    x, y = drawn(12, 0, values=4)
    assert kendall_p(x, y) == module.PValue(stats.kendalltau(x, y, method="asymptotic").pvalue, exact=False)


@pytest.mark.parametrize("values", [None, 4, 2])
@pytest.mark.parametrize("n", [3, 7])
def test_each_resample_is_the_statistic_of_the_repeated_points(n, values):
    x, y = in_order(*drawn(n, 5, values))
    counts = resampled_counts(n, 200, seed=1)
    ours = resampled_tau(x, y, counts), resampled_weighted_tau(x, y, counts), resampled_r2(x, y, counts)
    undefined = 0
    for index, count in enumerate(counts):
        a, b = np.repeat(x, count), np.repeat(y, count)
        found = [values[index] for values in ours]
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            undefined += 1
            assert np.isnan(found).all()
        else:
            expected = [stats.kendalltau(a, b).statistic, stats.weightedtau(a, b).statistic, np.corrcoef(a, b)[0, 1] ** 2]
            assert found == pytest.approx(expected, abs=1e-10)
    assert percentile_interval(ours[0], 0.95).undefined == undefined


def test_resamples_are_of_n_points():
    counts = resampled_counts(9, 5000, seed=0)
    assert set(counts.sum(axis=1).tolist()) == {9}
    assert counts.mean(axis=0) == pytest.approx(np.ones(9), abs=0.06)


def test_the_interval_is_seeded_and_knows_no_order_of_rows():
    x, y = drawn(9, 2)
    first, shuffled = agreement(x, y, resamples=500, seed=3), np.random.default_rng(0).permutation(9)
    assert agreement(x[shuffled], y[shuffled], resamples=500, seed=3) == first
    assert agreement(x, y, resamples=500, seed=4).tau_interval != first.tau_interval
    assert agreement(x, y, resamples=500, seed=4).tau == first.tau
    assert first.tau_interval.low <= first.tau <= first.tau_interval.high


def test_the_ends_are_quantiles():
    interval = percentile_interval(np.concatenate([np.arange(101.0), [np.nan]]), 0.9)
    assert (interval.low, interval.high, interval.resamples, interval.undefined) == pytest.approx((5, 95, 102, 1))
    assert percentile_interval(np.full(4, np.nan), 0.9) == module.Bootstrap(None, None, 4, 4)


def test_a_perfect_order():
    perfect = agreement([1, 2, 3, 4], [1, 2, 3, 4], resamples=300)
    assert (perfect.tau, perfect.weighted_tau, perfect.tau_interval.low, perfect.tau_interval.high) == pytest.approx((1, 1, 1, 1))
    assert perfect.tau_p == module.PValue(pytest.approx(2 / math.factorial(4)), exact=True)
    assert perfect.tau_interval.undefined > 0  # 4 of 256 resamples are one point only


@pytest.mark.parametrize(("x", "y", "words"), [([1, 2], [1, 2], "only 2 points"), ([1, 1, 1], [1, 2, 3], "all scores are the same")])
def test_undefined(x, y, words):
    with pytest.raises(UndefinedError, match=words):
        agreement(x, y)
