"""Schedules at the points that the published runs pass, and where a warm-up is longer than the run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot.dino.schedules import teacher_temperature, warmed_cosine


def published_temperatures(epochs: int, warmup: int) -> list[float]:
    """As the released code tabulates them, where it can."""
    return np.concatenate([np.linspace(0.04, 0.07, warmup), np.full(epochs - warmup, 0.07)]).tolist()


@pytest.mark.parametrize(("epochs", "warmup"), [(10, 3), (100, 50), (4, 0), (4, 1), (4, 4)])
def test_temperatures(epochs: int, warmup: int) -> None:
    found = [teacher_temperature(epoch, start=0.04, end=0.07, warmup=warmup) for epoch in range(epochs)]
    assert found == pytest.approx(published_temperatures(epochs, warmup))


def test_temperatures_of_the_published_run() -> None:
    """10 epochs, of which 3 of warm-up: .04, .055, .07, then .07."""
    found = [teacher_temperature(epoch, start=0.04, end=0.07, warmup=3) for epoch in range(10)]
    assert found == pytest.approx([0.04, 0.055] + [0.07] * 8)


def test_temperatures_of_a_run_that_ends_within_the_warm_up() -> None:
    """The released defaults, 50 epochs of warm-up, in a run of 3: the first three of the rise."""
    found = [teacher_temperature(epoch, start=0.04, end=0.07, warmup=50) for epoch in range(3)]
    assert found == pytest.approx([0.04 + 0.03 * epoch / 49 for epoch in range(3)])


def tabulated(start: float, end: float, steps: int, warmup: int) -> list[float]:
    """As the released code tabulates a cosine with warm-up."""
    left = np.arange(steps - warmup)
    falling = end + 0.5 * (start - end) * (1 + np.cos(np.pi * left / max(1, len(left))))
    return np.concatenate([np.linspace(0, start, warmup), falling]).tolist()


@pytest.mark.parametrize(("steps", "warmup"), [(50, 10), (50, 0), (7, 1), (6, 6), (1, 0)])
def test_a_cosine_with_warm_up(steps: int, warmup: int) -> None:
    found = [warmed_cosine(step, steps, start=3.75e-4, end=2e-6, warmup=warmup) for step in range(steps)]
    assert found == pytest.approx(tabulated(3.75e-4, 2e-6, steps, warmup), abs=1e-12)


def test_half_way_it_is_half_way() -> None:
    assert warmed_cosine(50, 100, start=0.04, end=0.4) == pytest.approx(0.22)
    assert warmed_cosine(0, 100, start=0.9998, end=1.0) == 0.9998
    assert 1 - warmed_cosine(99, 100, start=0.9998, end=1.0) == pytest.approx(2e-4 * (1 - math.cos(math.pi / 100)) / 2)


def test_a_warm_up_longer_than_the_run_is_cut() -> None:
    assert [warmed_cosine(step, 3, start=1.0, end=0.0, warmup=11) for step in range(3)] == pytest.approx([0, 0.1, 0.2])
