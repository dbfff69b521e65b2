"""Studies of merging that really run: a small random model, coloured images, a few steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import Interrupted, UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.evaluate import evaluate
from engine.runtime import start
from merging import resuming
from merging.stream import TensorFile
from models.selection import select_encoder
from study import merging_work
from study.cells import CHANGED, DONE, FAILED, TO_DO, read_record
from study.estimate import describe, states
from study.expansion import expand
from study.plan import Plan
from study.plan_file import read_plan
from study.run import RunOptions, run_units
from tests.study.real_merging import METHODS, TASKS, TRAIN, write_plan

OPTIONS = RunOptions(LoadOptions(batch_size=8, num_workers=0), device="cpu", precision="fp32")
FREE = {"task_arithmetic": {"scaling": 0.3}}
ADAPTED = {"task_wise_adamerging": {"adapt_steps": 3, "adapt_batch_size": 4}}
Records = dict[str, dict[str, Any]]
pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def make(tmp_path: Path, small_model: Path) -> Callable[..., Plan]:
    """A function: the plan with these methods and keys of [merging]."""
    return lambda methods=METHODS, **merging: read_plan(write_plan(tmp_path, small_model, methods, **merging))


@pytest.fixture
def study(make: Callable[..., Plan], tmp_path: Path) -> Callable[..., Records]:
    """A function: runs such a plan; its records by the ends of ``kind/name``."""

    def run(methods: Any = METHODS, out: Path = tmp_path / "out", options: RunOptions = OPTIONS, **merging: Any) -> Records:
        plan = make(methods, **merging)
        run_units(expand(plan), plan, out, options)
        return records(plan, out)

    return run


def records(plan: Plan, out: Path) -> Records:
    found = {f"{cell.kind} {cell.readable.split('_', 1)[1]}": read_record(cell, out) for unit in expand(plan) for cell in unit.cells}
    return {name: record for name, record in found.items() if record is not None}


def found_states(plan: Plan, out: Path) -> dict[str, str]:
    return {f"{cell.kind} {cell.readable.split('_', 1)[1]}": state for cell, state in states(expand(plan), plan, out, OPTIONS)}


def learnt(found: Records) -> Records:
    """What is the same in any two runs: results without seconds and paths."""
    kept = ("top1", "loss", "n_images", "n_correct", "learnt", "transductive", "parameters")
    return {name: {key: value for key, value in record["results"].items() if key in kept} for name, record in found.items()}


def test_every_kind_of_merge_runs_and_is_not_done_again(study: Callable[..., Records], capsys: pytest.CaptureFixture[str]) -> None:
    found = study(corruptions=["contrast-3"])
    assert {record["state"] for record in found.values()} == {DONE}, [record["error"] for record in found.values() if record["error"]]
    assert {record["kind"] for record in found.values()} == {"zero_shot", "single_test", "merge", "merged_test"}
    assert [record["results"]["transductive"] for name, record in found.items() if name.startswith("merge task_wise")] == [True, True]
    emr, fisher = found["merge emr_scaling1_seed0"]["results"], found["merge fisher_seed0"]["results"]
    assert [Path(file).name for file in emr["files"].values()] == ["one.safetensors", "two.safetensors"]
    assert (fisher["transductive"], fisher["data"], fisher["learnt"]) == (False, "images of every task", {})
    adapted = found["merge task_wise_adamerging_scaling0.3_seed0"]["results"]["learnt"]
    assert [name.rsplit("/", 1)[-1] for name in adapted["coefficients"]] == [*TASKS]
    assert all(0 < abs(value - 0.3) < 0.01 for value in adapted["coefficients"].values())
    tests = [record["results"] for record in found.values() if record["kind"] in ("single_test", "merged_test")]
    assert all(of["top1"] == of["n_correct"] / of["n_images"] and of["n_images"] == 12 for of in tests)
    assert len({of["loss"] for of in tests}) == len(tests)  # every encoder on every set of images
    capsys.readouterr()
    assert study(corruptions=["contrast-3"]) == found
    assert capsys.readouterr().out == ""


def test_a_merge_is_what_its_formula_says(
    study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path, small_model: Path
) -> None:
    """θ_0 + 0.3 Σ τ_k, with the encoder evaluated as test.py evaluates it."""
    found = study(FREE)
    merged = TensorFile(tmp_path / "out" / found["merge task_arithmetic_scaling0.3_seed0"]["results"]["file"])
    base, (one, two) = TensorFile(small_model / "open_clip_model.safetensors"), (
        TensorFile(path) for path in sorted((tmp_path / "tuned").iterdir())
    )  # fmt: skip
    encoder = select_encoder(str(small_model), None, {}).encoder
    own = encoder.model.state_dict()
    for name in (name for name in base.specs if name.startswith("visual.") and name != "visual.proj"):
        origin = base.read(name)
        expected = origin + 0.3 * (one.read(name) - origin + (two.read(name) - origin))
        torch.testing.assert_close(merged.read(f"model.{name}"), expected)
        own[name].copy_(expected)
    own["visual.proj"].copy_(merged.read("model.visual.proj"))
    task = load_task(f"imagefolder:{tmp_path / 'one'}", "test")
    top1 = evaluate(start("cpu", "fp32"), encoder, task, OPTIONS.load).top1
    assert found["merged_test task_arithmetic_scaling0.3_to_one_seed0"]["results"]["top1"] == top1


def test_models_are_trained_and_then_merged(study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path) -> None:
    found = study(FREE, train=TRAIN)
    assert {record["state"] for record in found.values()} == {DONE}, [record["error"] for record in found.values() if record["error"]]
    trained = found["train fine-tune_one_lr0.001_seed0"]
    header = TensorFile(tmp_path / "out" / trained["results"]["checkpoint"]).specs
    assert all(name.startswith("model.visual.") for name in header)
    hashes = [found[f"train fine-tune_{name}_lr0.001_seed0"]["results"]["checkpoint_sha256"] for name in TASKS]
    assert [*found["merge task_arithmetic_scaling0.3_seed0"]["inputs"]["models"].values()] == hashes
    more = make({"ties": {}}, train=TRAIN)
    assert {state for name, state in found_states(more, tmp_path / "out").items() if "ties" not in name} == {DONE}


def test_another_fine_tune_changes_what_is_made_of_it(study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path) -> None:
    study(FREE)
    one, two = sorted((tmp_path / "tuned").iterdir())
    one.write_bytes(two.read_bytes())
    after = found_states(make(FREE), tmp_path / "out")
    assert {name for name, state in after.items() if state == CHANGED} == {
        *("single_test single-one_to_one", "single_test single-one_to_two", "merge task_arithmetic_scaling0.3_seed0"),
    }
    study(FREE)
    assert set(found_states(make(FREE), tmp_path / "out").values()) == {DONE}


def test_other_images_change_what_adapts_to_them(study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path) -> None:
    study({**FREE, **ADAPTED})
    (tmp_path / "one/test/red/00.jpg").write_bytes((tmp_path / "one/test/blue/00.jpg").read_bytes())
    after = found_states(make({**FREE, **ADAPTED}), tmp_path / "out")
    assert after["merge task_wise_adamerging_scaling0.3_seed0"] == CHANGED
    assert after["merge task_arithmetic_scaling0.3_seed0"] == DONE
    assert (after["merged_test task_arithmetic_scaling0.3_to_one_seed0"], after["merged_test task_arithmetic_scaling0.3_to_two_seed0"]) == (
        *(CHANGED, DONE),
    )


def test_a_lost_merge_is_made_again_only_where_it_is_needed(
    study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path
) -> None:
    study(FREE)
    shutil.rmtree(tmp_path / "out" / "merges")
    assert set(found_states(make(FREE), tmp_path / "out").values()) == {DONE}
    more = found_states(make(FREE, eval_tasks=["Shapes-Color"]), tmp_path / "out")
    assert more["merge task_arithmetic_scaling0.3_seed0"] == TO_DO


def test_learning_that_was_stopped_goes_on_and_ends_the_same(
    study: Callable[..., Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(ADAPTED, tmp_path / "whole")
    after_step, steps = resuming.Loop.after_step, list[int]()

    def stopped(self: resuming.Loop, loss: float, stop: Any) -> None:
        stop.name = "SIGTERM" if not steps else None
        steps.append(1)
        after_step(self, loss, stop)

    with monkeypatch.context() as patched:
        patched.setattr(resuming.Loop, "after_step", stopped)
        with pytest.raises(Interrupted):
            study(ADAPTED)
        assert len(list((tmp_path / "out" / "merges").rglob("*state.safetensors"))) == 1
        assert learnt(study(ADAPTED)) == learnt(whole)
    assert len(steps) == 3  # one before it was stopped, two after
    assert {path.name for path in (tmp_path / "out" / "merges").rglob("*.*") if path.is_file()} == {
        "learnt.safetensors",
        "merged.safetensors",
    }


def test_a_merge_that_fails_fails_its_tests_and_nothing_else(
    study: Callable[..., Records], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise UserError("No space left.")

    with monkeypatch.context() as patched:
        patched.setattr(merging_work, "merge", broken)
        found = study(FREE)
    assert found["single_test single-one_to_two"]["state"] == DONE
    assert found["merge task_arithmetic_scaling0.3_seed0"]["error"] == "No space left."
    assert found["merged_test task_arithmetic_scaling0.3_to_one_seed0"]["state"] == FAILED
    assert "has not finished" in found["merged_test task_arithmetic_scaling0.3_to_one_seed0"]["error"]
    assert {record["state"] for record in study(FREE, options=replace(OPTIONS, retry_failed=True)).values()} == {DONE}


def test_a_missing_fine_tune_is_told_by_its_path(study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path) -> None:
    make(FREE)
    sorted((tmp_path / "tuned").iterdir())[0].unlink()
    found = records(plan := read_plan(tmp_path / "merging.toml"), tmp_path / "out")
    run_units(expand(plan), plan, tmp_path / "out", OPTIONS)
    found = records(plan, tmp_path / "out")
    assert found["merge task_arithmetic_scaling0.3_seed0"]["error"].startswith("No such file: '")
    assert found["single_test single-two_to_one"]["state"] == DONE


def test_an_estimate_knows_methods(make: Callable[..., Plan], study: Callable[..., Records], tmp_path: Path) -> None:
    guessed = describe(states(expand(make(FREE)), make(FREE), tmp_path / "out", OPTIONS), tmp_path / "out")
    assert "9 cells: 0 done, 0 failed, 9 to do, 0 changed." in guessed
    study(FREE)
    grid = {"task_arithmetic": {"scaling": [0.3, 0.4]}, "wemoe": {"adapt_steps": 10}}
    known = describe(states(expand(make(grid)), make(grid), tmp_path / "out", OPTIONS), tmp_path / "out")
    (row,) = [line for line in known.splitlines() if line.startswith("merge ")]
    assert "a guess for 1 of them" in row
