"""A study that is killed and stopped at any touch of its files ends with the tables of one that was not."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.faults.commands import reproduced
from tests.faults.killing import Fault, run_with
from tests.faults.results import left_over
from tests.faults.scale import count, times
from tests.helpers import run_here, write_model
from tests.study.real_study import tables, write_plan

KILLS = times(2, 60)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("study.study_figures.draw_all", lambda *_: [])  # figures take longer than all else
    model = write_model(tmp_path / "inputs" / "model")
    (tmp_path / "inputs" / "study").mkdir()
    plan = write_plan(tmp_path / "inputs" / "study", model, ("lora", "probe"))
    plan.write_text(plan.read_text().replace("epochs = 4", "epochs = 2").replace("rank = [2, 4]", "rank = 2"))
    return tmp_path / "inputs"


def test_a_study_ends_the_same(inputs: Path, tmp_path: Path) -> None:
    """One folder takes all faults, one after the other, each in what is left of the work; when it is done, the next is begun."""
    run_here("reproduce", *reproduced(inputs, tmp_path / "whole")).succeeded()
    expected, moments, faults, out = tables(tmp_path / "whole"), random.Random(0), 0, tmp_path / "out0"
    touches = run_with(Fault(), tmp_path / "counted", "reproduce", *reproduced(inputs, tmp_path / "counted")).touches
    while faults < KILLS:
        sent = signal.SIGTERM if faults % 3 == 2 else signal.SIGKILL
        outcome = run_with(Fault(moments.randint(1, touches // 2), sent=sent), out, "reproduce", *reproduced(inputs, out))
        if outcome.ended is not None and outcome.ended.status == 0:
            check(out, expected)
            out = tmp_path / f"out{faults}"
            continue
        assert outcome.ended is None or outcome.ended.status in (75, 143), outcome.ended
        faults += 1
        count("kills" if sent == signal.SIGKILL else "terminations")
    run_here("reproduce", *reproduced(inputs, out)).succeeded()
    check(out, expected)


def check(out: Path, expected: dict[str, list[list[str]]]) -> None:
    assert tables(out) == expected
    assert list(out.rglob("*_state.safetensors")) == []
    assert left_over(out) == []
