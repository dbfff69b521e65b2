"""Learning rates step by step, from the formulas."""

import math

import pytest

from engine.schedule import SCHEDULES, learning_rate


def rates(schedule, steps=10, warmup=0, peak=0.5):
    return [learning_rate(step, steps, peak=peak, schedule=schedule, warmup=warmup) for step in range(steps)]


def test_constant():
    assert rates("constant") == [0.5] * 10


def test_linear_falls_by_the_same_amount_and_would_be_0_after_the_last_step():
    assert rates("linear") == pytest.approx([0.5 * (10 - step) / 10 for step in range(10)])


def test_cosine_is_half_a_period():
    assert rates("cosine") == pytest.approx([0.25 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_in_equal_parts_to_the_peak_and_the_rest_is_a_shorter_run(schedule):
    found = rates(schedule, steps=14, warmup=4)
    assert found[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert found[4:] == pytest.approx(rates(schedule))
    assert max(found) == 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_as_long_as_the_run_or_longer(schedule):
    assert rates(schedule, steps=4, warmup=4) == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert rates(schedule, steps=2, warmup=4) == pytest.approx([0.125, 0.25])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_never_negative_and_never_above_the_peak(schedule):
    assert all(0 <= rate <= 0.5 for warmup in (0, 1, 5) for rate in rates(schedule, 7, warmup))
