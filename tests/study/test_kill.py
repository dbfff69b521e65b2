"""A study that is killed again and again ends as one that is not."""

import contextlib
import random
import shutil
import signal
import subprocess
import time

from tests.faults.scale import times
from tests.helpers import run_script, start_script
from tests.study.real_study import QUICK, tables, write_plan

KILLS = times(3, 20)  # in processes of their own; tests/faults/test_study_kills.py has more, in forks


def timed(*arguments):
    """A whole run: seconds to its first line, which tells its first cell, and from there to the last cell."""
    started = time.monotonic()
    process = start_script("reproduce", *arguments)
    process.stdout.readline()
    first = time.monotonic()
    while "cells are done" not in (line := process.stdout.readline()) and line:
        pass
    last = time.monotonic()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return first - started, last - first


def killed(at_work, seconds, *arguments):
    """Whether the run, started anew, got SIGKILL: ``seconds`` after its start, or where ``at_work`` after the first cell's line."""
    process = start_script("reproduce", *arguments)
    if at_work:
        process.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode != 0


def test_a_study_killed_at_random_has_the_tables_of_one_that_was_not(tmp_path, small_model):
    """SIGKILL to the real script. One that ends before its time is begun anew, so all kills hit work in progress."""
    plan, whole, broken = write_plan(tmp_path, small_model), tmp_path / "whole", tmp_path / "broken"
    to_first_cell, working = timed(plan, "--out", whole, *QUICK)
    moments, kills, done = random.Random(0), 0, set()
    while kills < KILLS:
        at_work = kills % 4 != 0  # every fourth while it starts, which takes as long as the machine is busy
        seconds = moments.uniform(0, working / 4 if at_work else to_first_cell)
        hit = killed(at_work, seconds, plan, "--out", broken, *QUICK)
        done.add(len(list(broken.glob("cells/*/*.json"))))
        kills += hit
        if not hit:
            shutil.rmtree(broken, ignore_errors=True)
    assert len(done) > 1, "every kill came before any work"
    run_script("reproduce", plan, "--out", broken, *QUICK).succeeded()
    assert tables(broken) == tables(whole)
    assert list(broken.rglob("*_state.safetensors")) == []
