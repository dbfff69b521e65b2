"""What the correction gains, and whether it gains more where it reduces the overlap more."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy import stats

from fewshot.method import CORRECTED
from fewshot.tables import Means, data_sets

ALL_SHOTS = 0  # in the place of a number of shots: the mean over them
LEAST = 3  # data sets, below which an order says nothing


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of the reduction of the overlap with the gain of one method over ``n`` data sets.

    None where it is undefined: fewer than 3 data sets, or all reductions or all gains alike.
    """

    method: str
    shots: int
    n: int
    kendall: float | None
    spearman: float | None


def gains(means: Means, method: str, shots: int) -> dict[str, float]:
    """{data set: accuracy of the corrected method less that of ``method``}, means over seeds; with 0 shots the mean over shots."""
    counts = [shots] if shots else sorted({count for _, name, count in means if name == method})
    found: dict[str, list[float]] = {}
    for dataset in data_sets(means):
        pairs = [((dataset, method + CORRECTED, count), (dataset, method, count)) for count in counts]
        if pairs and all(key in means for pair in pairs for key in pair):
            found[dataset] = [means[after].mean - means[before].mean for after, before in pairs]
    return {dataset: fmean(values) for dataset, values in found.items()}


def corrected_methods(means: Means) -> list[str]:
    """The methods that both versions were run of."""
    names = dict.fromkeys(method for _, method, _ in means)
    return [name for name in names if name + CORRECTED in names]


def mean_gains(means: Means) -> dict[str, float]:
    """{data set: mean gain over methods and shots}."""
    each = [gains(means, method, ALL_SHOTS) for method in corrected_methods(means)]
    return {dataset: fmean(of[dataset] for of in each if dataset in of) for dataset in dict.fromkeys(name for of in each for name in of)}


def correlations(means: Means, reductions: Mapping[str, float]) -> list[Correlation]:
    """For each method with a correction, each number of shots and their mean: over the data sets of ``reductions``."""
    found = []
    for method in corrected_methods(means):
        counts = sorted({shots for _, name, shots in means if name == method})
        for shots in [*counts, *([ALL_SHOTS] if len(counts) > 1 else [])]:
            of = {dataset: gain for dataset, gain in gains(means, method, shots).items() if dataset in reductions}
            found.append(_correlation(method, shots, [reductions[name] for name in of], list(of.values())))
    return found


def _correlation(method: str, shots: int, reductions: Sequence[float], gained: Sequence[float]) -> Correlation:
    """Kendall's tau-b and Spearman's rho (ranks of ties are averaged)."""
    n = len(gained)
    if n < LEAST or len(set(reductions)) == 1 or len(set(gained)) == 1:
        return Correlation(method, shots, n, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # p-values of so few points are of no use, and not asked for
        tau = float(stats.kendalltau(reductions, gained, variant="b").statistic)
        rho = float(stats.spearmanr(reductions, gained).statistic)
    return Correlation(method, shots, n, tau, rho)
