"""A study that is killed again and again ends as one that is not."""

import contextlib
import random
import shutil
import signal
import subprocess
import time

from tests.helpers import run_script, start_script
from tests.study.real_study import QUICK, tables, write_plan

KILLS = 10


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


def killed_after(seconds, *arguments):
    """Whether the run, started anew, was still at work after ``seconds``, when it got SIGKILL."""
    process = start_script("reproduce", *arguments)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode != 0


def test_a_study_killed_ten_times_at_random_has_the_tables_of_one_that_was_not(tmp_path, small_model):
    """SIGKILL to the real script. One that ends before its time is begun anew, so ten kills hit work in progress."""
    plan, whole, killed = write_plan(tmp_path, small_model), tmp_path / "whole", tmp_path / "killed"
    to_first_cell, working = timed(plan, "--out", whole, *QUICK)
    moments, kills, done = random.Random(0), 0, set()
    while kills < KILLS:
        hit = killed_after(to_first_cell + moments.uniform(-0.5, working / 4), plan, "--out", killed, *QUICK)
        done.add(len(list(killed.glob("cells/*/*.json"))))
        kills += hit
        if not hit:
            shutil.rmtree(killed)
    assert len(done) > 1, "every kill came before any work"
    run_script("reproduce", plan, "--out", killed, *QUICK).succeeded()
    assert tables(killed) == tables(whole)
    assert list(killed.rglob("*_state.safetensors")) == []
