"""The plain ways of benchmarks/few_shot.py search the same grid as the package."""

import numpy as np
import pytest

from benchmarks import few_shot as benchmark
from benchmarks.few_shot import PLAIN, Problem, exact, start, sweep, whole


@pytest.fixture(params=["tip_adapter", "tip_x"])
def problem(request):
    return Problem(request.param, images=90, classes=5, shots=3, dim=64, noise=0.3, lines=6, points=12, threads=1, repeats=1)


@pytest.fixture
def smaller_grids(monkeypatch):
    monkeypatch.setattr("fewshot.published.OVERLAP_ALPHAS", (0.0, 0.5, 3.0, 20.0))
    monkeypatch.setattr("fewshot.published.OVERLAP_GAMMAS", (0.0, 1.0, 30.0))


@pytest.mark.parametrize("way", PLAIN)
def test_counts_of_the_same_points_are_the_same(problem, way, smaller_grids):
    begun = start(problem)
    plain, swept = PLAIN[way](problem, *begun), sweep(problem, *begun)
    assert len(plain.points) == len(plain.counts) >= 12
    assert plain.best == plain.counts.max()
    assert np.abs(plain.counts - swept.counts[plain.points]).max() <= 1


def test_the_whole_grid_has_the_counts_and_the_best_point_of_the_sweep(problem, smaller_grids):
    begun = start(problem)
    found, swept = whole(problem, *begun), sweep(problem, *begun)
    assert np.array_equal(found.points, swept.points)
    assert np.array_equal(found.counts, swept.counts)
    assert (found.best, found.where) == (swept.best, swept.where)
    assert exact(problem, *begun).best >= swept.best


def test_counts_that_differ_are_noticed(problem, smaller_grids):
    swept = sweep(problem, *start(problem))
    wrong = benchmark.Found(None, swept.points, swept.counts + 5, swept.best + 5)
    with pytest.raises(AssertionError, match="differ by 5"):
        benchmark.difference(problem, wrong, swept)
