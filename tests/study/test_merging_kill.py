"""A study of merging that is killed again and again ends as one that is not."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.files import read_json
from engine.embed import LoadOptions
from study.expansion import expand
from study.plan_file import read_plan
from study.run import RunOptions, run_units
from tests.helpers import start_script
from tests.study.real_merging import TRAIN, write_plan

QUICK = ("--num-workers", 0, "--device", "cpu", "--bs", 8, "--precision", "fp32", "--only", "small_merging*")
OPTIONS = RunOptions(LoadOptions(batch_size=8, num_workers=0), device="cpu", precision="fp32")
METHODS: dict[str, dict[str, Any]] = {"ties": {}, "emr": {"per_model": True}, "task_wise_adamerging": {"adapt_steps": 20}}
pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def results(out: Path) -> dict[str, dict[str, Any]]:
    """What every cell has found, without seconds, paths and the hashes of files that tell the time."""
    told = ("top1", "loss", "n_correct", "learnt", "best_validation")
    found = {path.name: read_json(path) for path in sorted(out.glob("cells/*/*.json"))}
    return {name: {"state": record["state"], **{key: record["results"].get(key) for key in told}} for name, record in found.items()}


def test_a_merging_study_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, small_model: Path) -> None:
    """SIGKILL and SIGTERM to the real script, each so many cells after its start; the whole run is in this process."""
    plan = write_plan(tmp_path, small_model, METHODS, train=TRAIN)
    for signal_, cells, seconds in ((signal.SIGKILL, 3, 0.0), (signal.SIGTERM, 9, 0.3)):
        process = start_script("reproduce", plan, "--out", tmp_path / "broken", *QUICK)
        assert process.stdout is not None
        for _ in range(cells):
            process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal_)
        process.communicate(timeout=60)
        assert process.returncode != 0
    for out in (tmp_path / "broken", tmp_path / "whole"):
        run_units(expand(read_plan(plan)), read_plan(plan), out, OPTIONS)
    assert results(tmp_path / "broken") == results(tmp_path / "whole")
    assert {of["state"] for of in results(tmp_path / "whole").values()} == {"done"}
    left = [path.name for path in (tmp_path / "broken" / "merges").rglob("*") if "state" in path.name or path.suffix == ".tmp"]
    assert left == []
