"""Two ways in processes of their own, in turn: what is measured of them, and what becomes of one that fails."""

from __future__ import annotations

import operator
import os
from functools import partial
from typing import Any

import pytest

from benchmarks.rows import Row, Timing, in_turn, measured, row_of
from benchmarks.work import Disagreement, Prepare, Scaled, Work, relatively_within, said, within
from benchmarks.worker import Run, timed


def way(function: Any, *arguments: Any) -> Prepare:
    """Prepares a call of a function that any process can import."""
    return partial(partial, function, *arguments)


def work(plain: Prepare | None, ours: Prepare, **more: Any) -> Work:
    return Work("sums", "slowly", plain, ours, more.pop("agree", lambda one, other: f"{one} and {other}"), **more)


def test_both_ways_are_run_and_their_results_compared() -> None:
    row = row_of(work(way(max, 1, 2), way(min, 3, 4), repeats=2))
    assert (row.work, row.against, row.agreement, row.failed) == ("sums", "slowly", "2 and 3", "")
    assert row.plain is not None
    assert row.ours is not None
    assert row.plain.runs == row.ours.runs >= 2
    assert 0 <= row.plain.least <= row.plain.seconds <= row.plain.most
    assert row.ratio == row.plain.seconds / row.ours.seconds


def test_memory_is_that_of_the_work_alone() -> None:
    row = row_of(work(way(operator.mul, b"x", 100 << 20), way(max, 1, 2), agree=lambda one, other: "", repeats=1))
    assert row.plain is not None
    assert row.ours is not None
    assert 95 <= row.plain.added_mib <= 250  # the result is sent, so some of it is there twice
    assert row.ours.added_mib <= 20


def test_without_a_plain_way_there_is_no_ratio() -> None:
    row = row_of(work(None, way(max, 1, 2), first_counts=True))
    assert (row.plain, row.ratio, row.agreement) == (None, None, "None and 2")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (way(operator.truediv, 1, 0), "ZeroDivisionError"),
        (partial(int, "no number"), "ValueError"),
        (way(os._exit, 3), "died with exit code 3"),
    ],
)
def test_a_way_that_fails_makes_a_row_that_says_so_and_the_next_row_follows(
    broken: Prepare, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = measured([work(way(max, 1, 2), broken), work(None, way(max, 1, 2), repeats=1)])
    assert reason in first.failed
    assert second.failed == ""


def test_results_that_disagree_make_a_failed_row_with_its_times() -> None:
    def refuse(plain: int, ours: int) -> str:
        raise Disagreement(f"{plain} is not {ours}")

    row = row_of(work(way(max, 1, 2), way(min, 1, 2), agree=refuse, repeats=1))
    assert row.failed == "the results disagree: 2 is not 1"
    assert row.ratio is not None


class Counting:
    """Stands for a process."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def run(self) -> Run:
        self.log.append(self.name)
        return Run(0.0, 0.0, 1)


def test_ways_take_turns_brief_ones_more_of_them_and_long_ones_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    ways: Any = [Counting(log, "p"), Counting(log, "o")]
    monkeypatch.setattr("benchmarks.rows.BRIEF", 0.0)
    assert len(list(in_turn(ways, work(None, way(max, 1, 2), repeats=3)))) == 4  # the first does not count
    assert "".join(log) == "popopopo"
    monkeypatch.setattr("benchmarks.rows.LONG", 0.0)
    assert len(list(in_turn(ways, work(None, way(max, 1, 2), repeats=3)))) == 3
    assert len(list(in_turn(ways, work(None, way(max, 1, 2), repeats=1, first_counts=True)))) == 1
    monkeypatch.setattr("benchmarks.rows.LONG", 1e9)
    monkeypatch.setattr("benchmarks.rows.BRIEF", 1e9)
    assert len(list(in_turn(ways, work(None, way(max, 1, 2), repeats=3, first_counts=True)))) == 15


def test_the_median_is_told() -> None:
    timing = Timing.of([Run(3.0, 1.0, 0), Run(1.0, 5.0, 0), Run(2.0, 2.0, 0)], 100, 90)
    assert timing == Timing(2.0, 1.0, 3.0, 2.0, 3, 100, 0)


def test_a_way_that_does_a_part_says_what_the_whole_takes() -> None:
    run, value = timed(lambda: Scaled("found", 12.0, 24.0))
    assert (run.seconds, run.cpu, value) == (12.0, 24.0, "found")


def test_differences_in_words() -> None:
    assert within(1e-3, "weights", [1.0, 2.0], [1.0, 2.0]) == "weights equal"
    assert within(1e-3, "weights", [1.0, 2.0], [1.0, 2.0002]) == "weights within 2e-04"
    assert relatively_within(1e-3, "scores", -2.0, -2.0002) == "scores relatively within 1e-04"
    assert relatively_within(1e-3, "scores", 0.0, 0.0) == "scores relatively equal"


@pytest.mark.parametrize("apart", [0.2, float("nan")])
def test_too_large_a_difference_is_no_agreement(apart: float) -> None:
    with pytest.raises(Disagreement, match="weights differ by"):
        said(0.1, "weights", apart)


def test_a_row_without_times_has_no_ratio() -> None:
    assert Row("sums", "slowly", failed="out of memory").ratio is None
