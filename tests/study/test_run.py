"""Running units in this process: what is done stays, what fails is told and tried again on request, what changed is done anew."""

import fcntl
import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import Interrupted
from engine.embed import LoadOptions
from engine.embeddings import load_embeddings
from engine.evaluate import evaluate
from engine.runtime import start
from metrics.statistics import MetricError
from models.selection import select_encoder
from study import inputs, work
from study.cells import DONE, FAILED, read_record
from study.estimate import describe, states
from study.expansion import expand
from study.plan_file import read_plan
from study.run import RunOptions, counts, failures, run_unit, run_units
from tests.helpers import write_images, write_model
from tests.study.small_plans import write_plan

OPTIONS = RunOptions(LoadOptions(batch_size=8, num_workers=0), device="cpu")
pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def make(tmp_path, small_model, image_folder):
    """A function: the plan of the small model and the coloured images with these changes."""

    def plan(**changes):
        known = {"models": [str(small_model)], "tasks": [f"imagefolder:{image_folder}"]}
        return read_plan(write_plan(tmp_path / "small.toml", **{**known, **changes}))

    return plan


@pytest.fixture
def study(make, tmp_path):
    """A function: runs a plan with these changes; its records by ``kind/readable name``, in the order of the cells."""

    def run(out=tmp_path / "out", options=OPTIONS, **changes):
        plan = make(**changes)
        run_units(expand(plan), plan, out, options)
        return records(plan, out)

    return run


def records(plan, out):
    return {str(cell): read_record(cell, out) for unit in expand(plan) for cell in unit.cells}


def of_kind(found, kind):
    return [record for record in found.values() if record["kind"] == kind]


def files(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_cells_hold_what_the_commands_compute(study, make, tmp_path, small_model, image_folder):
    found = study()
    assert {record["state"] for record in found.values()} == {DONE}
    plan, runtime = make(), start("cpu")
    task = study_task(plan, "test")
    (zero_shot,), (embed,) = of_kind(found, "zero_shot"), of_kind(found, "embed")
    selection = select_encoder(str(small_model), None, {})
    assert zero_shot["results"]["top1"] == evaluate(runtime, selection.encoder, task, OPTIONS.load).top1
    embeddings = load_embeddings(tmp_path / "out" / embed["results"]["file"])
    assert len(embeddings.labels) == embed["results"]["n_images"] == 24 - 5
    assert embed["results"]["fingerprint"] == embeddings.metadata["fingerprint"] == study_task(plan, "train").fingerprint
    iimm, gap = of_kind(found, "measure")
    images, texts = embeddings.image_embeddings, embeddings.text_embeddings
    assert gap["results"]["score"] == pytest.approx(float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0))), rel=1e-5)
    assert iimm["results"]["interval"] == "jackknife"
    assert iimm["results"]["low"] < iimm["results"]["score"] < iimm["results"]["high"]


def study_task(plan, split):
    from datasets.registry import load_task

    return load_task(plan.tasks[0], split, val_p=plan.val_p)


def test_the_setting_with_the_best_validation_is_tested(study, tmp_path):
    found = study(training={"epochs": 1, "lr": [1e-9, 0.05], "optimizer": "AdamW", "batch_size": 4}, tunings={"probe": {}})
    trained, (test,) = of_kind(found, "train"), of_kind(found, "test")
    best = max(trained, key=lambda record: record["results"]["best_validation"])
    assert test["results"]["chosen"] == best["key"]["setting"]
    assert test["results"]["checkpoint"] == best["results"]["checkpoint"]
    assert test["results"]["validation"] == best["results"]["best_validation"]
    assert test["results"]["settings"] == 2
    assert (tmp_path / "out" / best["results"]["checkpoint"]).is_file()
    assert len(best["results"]["epochs"]) == 1


def test_the_first_setting_wins_a_tie(study):
    found = study(training={"epochs": 1, "lr": [1e-12, 1e-11]}, tunings={"bias": {}})
    assert of_kind(found, "train")[0]["results"]["best_validation"] == of_kind(found, "train")[1]["results"]["best_validation"]
    assert of_kind(found, "test")[0]["results"]["chosen"]["lr"] == 1e-12


def test_a_study_trains_as_the_command_does(study, small_model, image_folder, tmp_path):
    """Second in a grid, after another training in the same process: the same tensors as of a run of its own."""
    from models.tensors import read_safetensors
    from tests.helpers import run_here

    found = study(tunings={"lora": {"rank": 2}}, seeds=[5])
    arguments = ["--dataset", f"imagefolder:{image_folder}", "--model-name", "lora", "--base-model", small_model, "--rank", 2]
    arguments += ["--lr", 0.001, "--nepochs", 1, "--bs", 8, "--val-p", 0.2, "--seed", 5, "--device", "cpu", "--num-workers", 0]
    run_here("train", *arguments, "--model-dir", tmp_path / "alone").succeeded()
    (alone,) = (tmp_path / "alone").glob("*_best.safetensors")
    of_study = tmp_path / "out" / of_kind(found, "train")[1]["results"]["checkpoint"]
    for name, tensor in read_safetensors(alone)[0].items():
        torch.testing.assert_close(read_safetensors(of_study)[0][name], tensor, rtol=0, atol=0)


def test_histograms_count_every_pair_once(study):
    (embed,) = of_kind(study(tunings={}, training={}), "embed")
    n, of = embed["results"]["n_images"], embed["results"]["histograms"]
    total = {name: sum(histogram["counts"]) for name, histogram in of.items()}
    assert total["same_class"] + total["different_class"] == n * (n - 1) // 2
    assert (total["image_text_right"], total["image_text_wrong"]) == (n, 2 * n)
    assert all(len(histogram["edges"]) == len(histogram["counts"]) + 1 for histogram in of.values())


def test_what_is_done_is_not_done_again(study, tmp_path, capsys):
    first = study()
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert study() == first
    assert {path: when for path, when in files(tmp_path / "out").items() if path.suffix != ".toml"} == before
    assert capsys.readouterr().out == ""


def test_a_longer_grid_only_trains_what_is_new(study, capsys):
    study(tunings={"lora": {"rank": 2}})
    capsys.readouterr()
    study(tunings={"lora": {"rank": [2, 4]}})
    lines = capsys.readouterr().out.splitlines()
    assert sum(" train " in line for line in lines) == 2
    assert not any(word in line for line in lines for word in ("zero_shot", "embed", "measure"))


def test_a_failed_cell_is_recorded_and_the_rest_go_on(study, tmp_path, capsys):
    """A weight decay that makes the weights overflow."""
    found = study(training={"epochs": 1, "lr": 0.001, "wd": [1e12, 0], "batch_size": 2}, tunings={"full": {}})
    failed, good = of_kind(found, "train")
    assert failed["state"] == FAILED
    assert failed["error"].startswith("The ")
    assert failed["results"] == {}
    assert good["state"] == DONE
    assert of_kind(found, "test")[0]["results"]["chosen"]["wd"] == 0
    assert "FAILED: The " in capsys.readouterr().out


def test_a_defect_is_recorded_with_its_traceback_and_tried_again_on_request(study, make, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patched:
        patched.setitem(work._WORK, "zero_shot", broken)
        found = study()
    assert "Traceback" in of_kind(found, "zero_shot")[0]["error"]
    assert {record["state"] for record in found.values()} == {DONE, FAILED}
    units, out = expand(make()), tmp_path / "out"
    assert [(cell.kind, error) for cell, error in failures(units, out)] == [("zero_shot", "ZeroDivisionError: a defect")]
    assert counts(units, out) == {DONE: len(found) - 1, FAILED: 1}
    assert of_kind(study(), "zero_shot")[0]["state"] == FAILED
    capsys.readouterr()
    assert of_kind(study(options=replace(OPTIONS, retry_failed=True)), "zero_shot")[0]["state"] == DONE
    assert capsys.readouterr().out.count("\n") == 1


def test_images_that_come_later_are_noticed(study, tmp_path):
    tasks = [f"imagefolder:{tmp_path / 'later'}"]
    found = study(tasks=tasks)
    assert {record["state"] for record in found.values()} == {FAILED}
    assert "later" in of_kind(found, "embed")[0]["error"]
    assert "None of the 2 trainings" in of_kind(found, "test")[0]["error"]
    for split in ("train", "test"):
        write_images(tmp_path / "later" / split, 5)
    assert {record["state"] for record in study(tasks=tasks).values()} == {DONE}


def test_changed_images_are_noticed(study, image_folder, tmp_path, capsys):
    folder = tmp_path / "colors"
    shutil.copytree(image_folder, folder)
    tasks = [f"imagefolder:{folder}"]
    before = study(tasks=tasks)
    (folder / "test" / "red" / "00.jpg").write_bytes((folder / "test" / "blue" / "00.jpg").read_bytes())
    capsys.readouterr()
    after = study(tasks=tasks)
    kinds = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["zero_shot", "test", "test"]  # of the tests only those on these images, and nothing is trained
    assert of_kind(after, "embed") == of_kind(before, "embed")


def test_changed_weights_change_everything(study, tmp_path, capsys):
    model = write_model(tmp_path / "model")
    before = study(models=[str(model)])
    shutil.rmtree(model)
    write_model(model, seed=1)
    capsys.readouterr()
    after = study(models=[str(model)])
    assert len(capsys.readouterr().out.splitlines()) == len(before)
    assert of_kind(after, "embed")[0]["results"]["checkpoint_sha256"] != of_kind(before, "embed")[0]["results"]["checkpoint_sha256"]
    assert of_kind(after, "train")[0]["results"]["checkpoint_sha256"] != of_kind(before, "train")[0]["results"]["checkpoint_sha256"]


def test_changed_code_of_a_measure_changes_that_measure(study, monkeypatch, capsys):
    study()
    code = inputs.code_of
    monkeypatch.setattr(inputs, "code_of", lambda metric: "other" if metric.name == "gap" else code(metric))
    capsys.readouterr()
    study()
    assert [line.split()[1:5:3] for line in capsys.readouterr().out.splitlines()] == [["measure", "gap:"]]


def test_the_code_of_a_measure_is_all_that_it_imports():
    from metrics.table import METRICS
    from study.inputs import _with_imports, code_of

    assert {"iimm.py", "statistics.py", "sample.py"} <= _with_imports("metrics.iimm")
    assert "gbc.py" not in _with_imports("metrics.iimm")
    hashes = {code_of(metric) for metric in METRICS.values()}
    assert len(hashes) > 5
    assert all(len(each) == 64 for each in hashes)


def test_deleted_products_are_made_again_only_when_needed(study, tmp_path, capsys):
    study()
    for folder in ("embeddings", "ckpts"):
        for path in (tmp_path / "out" / folder).rglob("*.safetensors"):
            path.unlink()
    capsys.readouterr()
    study()
    assert capsys.readouterr().out == ""
    study(measures=["iimm", "gap", "alignment"])
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["embed", "measure"]
    for path in (tmp_path / "out" / "cells" / "test").iterdir():
        path.unlink()
    found = study()
    assert {record["state"] for record in found.values()} == {DONE}


def test_undefined_scores_are_results(study, monkeypatch):
    """That a measure is not defined for these images is known of the task, not a failure."""

    def undefined(*_):
        raise MetricError("needs more images")

    monkeypatch.setattr(work, "score", undefined)
    found = of_kind(study(tunings={}, training={}), "measure")
    assert [(record["state"], record["results"]) for record in found] == [(DONE, {"error": "needs more images"})] * 2


def test_a_signal_stops_between_two_writes_and_the_rest_follows(study, make, tmp_path, monkeypatch):
    """The second cell is interrupted; the first one stays, and what follows goes on from there to the same results."""
    whole = study(out=tmp_path / "whole")
    embed = work._WORK["embed"]

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return embed(*arguments)

    with monkeypatch.context() as patched:
        patched.setitem(work._WORK, "embed", interrupted)
        with pytest.raises(Interrupted, match=r"^Stopped by SIGTERM.*run the same command again"):
            study()
    partly = records(make(), tmp_path / "out")
    assert [record["kind"] for record in partly.values() if record] == ["zero_shot"]
    results = {name: without_seconds(record["results"]) for name, record in study().items()}
    assert results == {name: without_seconds(record["results"]) for name, record in whole.items()}


def without_seconds(results):
    return {name: value for name, value in results.items() if "seconds" not in name and name != "checkpoint_sha256"}


def test_a_unit_at_which_another_process_works_comes_last(study, make, tmp_path, capsys):
    plan, out = make(), tmp_path / "out"
    first = expand(plan)[0]
    (out / "cells").mkdir(parents=True)
    with (out / "cells" / f".{first.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        release = threading.Thread(target=lambda: (wait_for(out / "cells" / "test"), fcntl.flock(lock, fcntl.LOCK_UN)))
        release.start()
        study()
        release.join()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1] == "train"
    assert lines[-1].split()[1] == "measure"


def wait_for(folder, seconds=60):
    deadline = time.monotonic() + seconds
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_pixels_of_image_files_that_are_trained_on_are_kept(study, tmp_path):
    """Those that are only looked at once or twice are not."""
    study(out=tmp_path / "untuned", tunings={}, training={})
    study(tunings={"full": {}})
    assert not (tmp_path / "untuned" / "pixels").exists()
    assert {path.name.split("-")[0] for path in (tmp_path / "out" / "pixels").glob("*.npy")} == {"colors"}


def test_one_unit_can_be_run_as_a_job(make, tmp_path):
    plan = make()
    run_unit(expand(plan)[1], plan, tmp_path / "out", OPTIONS)
    assert counts(expand(plan)[1:2], tmp_path / "out") == {DONE: len(expand(plan)[1].cells)}


def test_the_estimate_learns_from_what_is_done(study, make, tmp_path):
    def told(**changes):
        plan = make(**changes)
        return describe(states(expand(plan), plan, tmp_path / "out", OPTIONS), tmp_path / "out")

    assert "a guess for" in told()
    assert not (tmp_path / "out").exists()
    study()
    assert told().endswith("Nothing is left to do.")
    later = told(seeds=[0, 1])
    assert "a guess" not in later
    assert "done cells of the kind" in later
    assert int(later.splitlines()[-3].split()[1]) == 3 + 2  # trainings and tests of another seed
