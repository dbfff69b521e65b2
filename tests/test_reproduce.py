"""reproduce.py as users and schedulers run it: from a plan to the report, killed, signalled, in shards."""

import json
import random
import re
import signal
import time

import pytest

from study.cells import CHANGED, DONE
from study.expansion import expand
from study.plan_file import read_plan
from tests.faults.scale import times
from tests.helpers import ROOT, run_here, run_script, start_script
from tests.study.small_plans import write_inversion_plan, write_plan

FLAGS = ["--num-workers", 0, "--bs", 8, "--device", "cpu"]


@pytest.fixture
def plan(tmp_path, small_model, image_folder):
    """A function: the file of a plan of the small model and the coloured images with these changes."""

    def make(**changes):
        known = {"models": [str(small_model)], "tasks": [f"imagefolder:{image_folder}"], "eval_tasks": ["Digits"]}
        return write_plan(tmp_path / "small.toml", **{**known, **changes})

    return make


def results(out):
    """The results of all cells, less the seconds they took and what depends on them."""
    found = {}
    for path in sorted((out / "cells").rglob("*.json")):
        record = json.loads(path.read_text())
        assert record["state"] == DONE
        timeless = {name: value for name, value in record["results"].items() if "seconds" not in name and name != "checkpoint_sha256"}
        found[f"{record['kind']}/{path.stem}"] = timeless
    return found


def test_from_a_plan_to_the_report(plan, tmp_path):
    out = tmp_path / "out"
    ended = run_script("reproduce", plan(), "--out", out, *FLAGS).succeeded()
    lines = ended.stdout.splitlines()
    total = sum(len(unit.cells) for unit in expand(read_plan(plan())))
    assert re.fullmatch(rf"\[1/{total}\] zero_shot small-?\w* colors: top-1 0\.\d\d\d of 12 images, \d+ s", lines[0]), lines[0]
    assert f"{total} of {total} cells are done, 0 failed, 0 are to do." in lines
    assert f"report: {out / 'report.html'}" in lines
    assert {"report.md", "report.html", "plan.toml", "tables", "figures"} <= {path.name for path in out.iterdir()}
    assert (out / "plan.toml").read_text() == plan().read_text()


def test_again_it_only_writes_the_report(plan, tmp_path):
    first = run_here("reproduce", plan(), "--out", tmp_path / "out", *FLAGS).succeeded()
    again = run_here("reproduce", plan(), "--out", tmp_path / "out", *FLAGS).succeeded()
    assert not re.search(r"^\[\d", again.stdout, re.MULTILINE)
    assert first.stdout.endswith(again.stdout)


def test_a_dry_run_lists_the_cells_and_writes_nothing(plan, tmp_path):
    ended = run_here("reproduce", plan(), "--out", tmp_path / "out", "--dry-run", *FLAGS).succeeded()
    assert "11 cells: 0 done, 0 failed, 11 to do, 0 changed." in ended.stdout
    assert "to do    train/small_lora_colors_lr0.01_seed0-" in ended.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_what_has_changed(plan, tmp_path):
    out = tmp_path / "out"
    run_here("reproduce", plan(), "--out", out, *FLAGS).succeeded()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one {c}\n")
    ended = run_here("reproduce", plan(prompts=str(prompts)), "--out", out, "--dry-run", *FLAGS).succeeded()
    assert f"11 cells: 0 done, 0 failed, 0 to do, 11 {CHANGED}." in ended.stdout


def test_shards_and_then_the_report(plan, tmp_path):
    out = tmp_path / "out"
    first = run_here("reproduce", plan(), "--out", out, "--shard", "1/2", *FLAGS).succeeded()
    assert "still to do, so there is no report yet" in first.stdout
    assert not (out / "report.md").exists()
    second = run_here("reproduce", plan(), "--out", out, "--shard", "2/2", *FLAGS).succeeded()
    assert "report: " in second.stdout
    run_here("reproduce", plan(), "--out", tmp_path / "whole", *FLAGS).succeeded()
    assert results(out) == results(tmp_path / "whole")


def test_a_part_can_be_reported_on(plan, tmp_path):
    out = tmp_path / "out"
    run_here("reproduce", plan(), "--out", out, "--only", "*zero_shot*", *FLAGS).succeeded()
    run_here("reproduce", plan(), "--out", out, "--report-only").succeeded()
    assert (out / "report.html").exists()


def test_failures_are_summed_up_and_give_status_1(plan, tmp_path):
    changed = plan(training={"epochs": 1, "lr": 0.001, "wd": [1e12, 0], "batch_size": 2}, tunings={"full": {}})
    ended = run_here("reproduce", changed, "--out", tmp_path / "out", *FLAGS)
    assert ended.status == 1
    assert "8 of 9 cells are done, 1 failed, 0 are to do." in ended.stdout
    assert "failed: train" in ended.stderr
    assert "--retry-failed" in ended.stderr
    assert "report: " in ended.stdout
    again = run_here("reproduce", changed, "--out", tmp_path / "out", "--retry-failed", *FLAGS)
    assert again.status == 1
    assert again.stdout.count("FAILED") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--shard", "3/2"], ["3/2", "1/4"]),
        (["--only", "nothing"], ["nothing", "--dry-run"]),
        (["--seed", 1], ["seeds"]),
        (["--dry-run", "--report-only"], ["--report-only"]),
        (["--executor", "slurm", "--sbatch", "account"], ["NAME=VALUE"]),
    ],
)
def test_flags_that_mean_nothing_are_refused(plan, tmp_path, flags, words):
    run_here("reproduce", plan(), "--out", tmp_path / "out", *flags).refused(*words)


def test_a_plan_with_a_mistake_fails_before_anything_runs(plan, tmp_path):
    mistaken = plan()
    mistaken.write_text(mistaken.read_text().replace("iimm", "imm"))
    run_here("reproduce", mistaken, "--out", tmp_path / "out").refused(mistaken, "line", "iimm")
    assert not (tmp_path / "out").exists()


# --- inversion -----------------------------------------------------------------------------------------------------


def test_inversion_from_a_plan_to_the_report(tmp_path, image_folder, small_model):
    tasks = [f"imagefolder:{image_folder}"]
    known = {"image_tasks": tasks, "zero_shot_tasks": tasks, "text_tasks": ["Shapes-Captions"], "fuse": [0.5], "project": ["pca"]}
    path = write_inversion_plan(tmp_path / "small.toml", {"models": [str(small_model)]}, **known, oti={"steps": 3}, ovi={"steps": 2})
    ended = run_here("reproduce", path, "--out", tmp_path / "out", *FLAGS).succeeded()
    assert "14 of 14 cells are done, 0 failed, 0 are to do." in ended.stdout
    assert re.search(
        r"images by images, colors: native \d+\.\d, oti \d+\.\d \([+-]\d+\.\d\), oti fused 0.5 ", ended.stdout.replace(tasks[0], "colors")
    )
    assert "## Zero-shot with inverted features" in (tmp_path / "out" / "report.md").read_text()
    again = run_here("reproduce", path, "--out", tmp_path / "out", *FLAGS).succeeded()
    assert not re.search(r"^\[\d", again.stdout, re.MULTILINE)


def test_a_killed_inversion_goes_on_with_the_items_that_are_left(tmp_path):
    """492 drawings, which are two batches of OTI on the tiny model."""
    known = {"image_tasks": ["Shapes-Color"], "oti": {"steps": 20}}
    path, out = write_inversion_plan(tmp_path / "inversion.toml", {"models": ["tiny"]}, **known), tmp_path / "out"
    process = start_script("reproduce", path, "--out", out, *FLAGS)
    while not (shards := list(out.rglob("items-*.safetensors"))):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (shard,), when = shards, shards[0].stat().st_mtime_ns
    run_here("reproduce", path, "--out", out, *FLAGS).succeeded()
    assert shard.stat().st_mtime_ns == when
    assert len(list(out.rglob("items-*.safetensors"))) == 2
    run_here("reproduce", path, "--out", tmp_path / "whole", *FLAGS).succeeded()
    assert results(out) == results(tmp_path / "whole")


def test_papers_plans_are_planned_without_data(tmp_path):
    for name in ("cross_the_gap", "inversion_dynamics", "inversion_tiny"):
        ended = run_here("reproduce", ROOT / "plans" / f"{name}.toml", "--dry-run", "--out", tmp_path / "out").succeeded()
        assert " 0 done, 0 failed, " in ended.stdout
    assert not (tmp_path / "out").exists()


# --- killed and signalled ------------------------------------------------------------------------------------------

LONG = {"training": {"epochs": 4, "lr": [0.01, 0.001], "optimizer": "AdamW", "batch_size": 2}, "tunings": {"lora": {"rank": 2}}}


def test_sigterm_ends_with_status_75_and_the_rest_follows(plan, tmp_path):
    out = tmp_path / "out"
    process = start_script("reproduce", plan(**LONG), "--out", out, *FLAGS)
    while "measure" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command again" in err
    run_here("reproduce", plan(**LONG), "--out", out, *FLAGS).succeeded()
    run_here("reproduce", plan(**LONG), "--out", tmp_path / "whole", *FLAGS).succeeded()
    assert results(out) == results(tmp_path / "whole")


def test_killed_at_random_moments_it_ends_with_the_same_tables(plan, tmp_path):
    run_here("reproduce", plan(**LONG), "--out", tmp_path / "whole", *FLAGS).succeeded()
    draw, out = random.Random(0), tmp_path / "out"
    for _ in range(times(1, 10)):
        process = start_script("reproduce", plan(**LONG), "--out", out, *FLAGS)
        while process.poll() is None and not process.stdout.readline().startswith("["):
            pass
        time.sleep(draw.uniform(0, 1.0))
        process.kill()
        process.communicate()
    run_here("reproduce", plan(**LONG), "--out", out, *FLAGS).succeeded()
    assert results(out) == results(tmp_path / "whole")
