"""The plain ways of benchmarks/few_shot.py search the same grid as the package."""

import numpy as np
import pytest

from benchmarks import few_shot as benchmark
from benchmarks.few_shot import PLAIN, Problem, exact, start, sweep, whole
from benchmarks.few_shot_plain import Found
from benchmarks.work import Disagreement


@pytest.fixture(params=["tip_adapter", "tip_x"])
def problem(request):
    return Problem(request.param, images=90, classes=5, shots=3, dim=64, noise=0.3, lines=6, points=12)


@pytest.fixture
def smaller_grids(monkeypatch):
    monkeypatch.setattr("fewshot.published.OVERLAP_ALPHAS", (0.0, 0.5, 3.0, 20.0))
    monkeypatch.setattr("fewshot.published.OVERLAP_GAMMAS", (0.0, 1.0, 30.0))


@pytest.mark.parametrize("way", PLAIN)
def test_counts_of_the_same_points_are_the_same(problem, way, smaller_grids):
    begun = start(problem)
    scaled, swept = PLAIN[way](problem, *begun), sweep(problem, *begun)
    plain = scaled.value
    assert scaled.seconds > 0
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
    with pytest.raises(Disagreement, match="differ by 5"):
        benchmark.agreement(problem, Found(swept.points, swept.counts + 5, swept.best + 5), swept)
    off_by_rounding = Found(swept.points, swept.counts + 1, swept.best + 1)
    assert "within 1" in benchmark.agreement(problem, off_by_rounding, swept)
    with pytest.raises(Disagreement, match="differ by 1"):  # evaluating every point of the same logits has to give the same
        benchmark.agreement(problem, Found(swept.points, swept.counts + 1, swept.best + 1, swept.where), swept)


def test_an_exact_search_that_is_worse_than_the_grid_is_noticed(problem, smaller_grids):
    swept, found = sweep(problem, *start(problem)), exact(problem, *start(problem))
    assert "the grid" in benchmark.agreement(problem, swept, found)
    with pytest.raises(Disagreement, match="the exact search finds"):
        benchmark.agreement(problem, Found(swept.points, swept.counts, found.best + 1), found)
