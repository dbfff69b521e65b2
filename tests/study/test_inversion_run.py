"""Studies of inversion that really run: a small random model, coloured images, drawn captions, few steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import Interrupted, UserError
from engine.embed import LoadOptions
from engine.runtime import start
from inversion import run as inversion_run
from inversion.pseudo_tokens import load_pseudo_tokens
from models.selection import select_encoder
from study import inversion_work
from study.cells import CHANGED, DONE, FAILED, TO_DO, read_record
from study.estimate import describe, states
from study.expansion import expand
from study.plan import Plan
from study.plan_file import read_plan
from study.run import RunOptions, run_units
from tests.helpers import write_images, write_model
from tests.study.small_plans import write_inversion_plan

OPTIONS = RunOptions(LoadOptions(batch_size=8, num_workers=0), device="cpu", precision="fp32")
Records = dict[str, dict[str, Any]]
pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def make(tmp_path: Path, small_model: Path, image_folder: Path) -> Callable[..., Plan]:
    """A function: the plan of the small model and the coloured images with these changes."""

    def plan(**changes: Any) -> Plan:
        task = f"imagefolder:{image_folder}"
        known: dict[str, Any] = {"image_tasks": [task], "oti": {"steps": 4, "snapshots": [2]}, "ovi": {"steps": 2}, **changes}
        return read_plan(write_inversion_plan(tmp_path / "small.toml", {"models": [str(small_model)]}, **known))

    return plan


@pytest.fixture
def study(make: Callable[..., Plan], tmp_path: Path) -> Callable[..., Records]:
    """A function: runs a plan with these changes; its records by the ends of ``kind/name``, which tell them apart."""

    def run(out: Path = tmp_path / "out", options: RunOptions = OPTIONS, **changes: Any) -> Records:
        plan = make(**changes)
        run_units(expand(plan), plan, out, options)
        return records(plan, out)

    return run


def records(plan: Plan, out: Path) -> Records:
    found = {f"{cell.kind} {cell.readable.split('_', 1)[1]}": read_record(cell, out) for unit in expand(plan) for cell in unit.cells}
    return {name: record for name, record in found.items() if record is not None}


def of_kind(found: Records, kind: str) -> list[dict[str, Any]]:
    return [record["results"] for record in found.values() if record["kind"] == kind]


def test_every_kind_of_cell_runs(study: Callable[..., Records], image_folder: Path, tmp_path: Path) -> None:
    tasks = [f"imagefolder:{image_folder}"]
    more = {"zero_shot_tasks": tasks, "misalignment": tasks, "text_tasks": ["Shapes-Captions"], "project": ["pca"], "fuse": [0.5]}
    found = study(**more)
    assert {record["state"] for record in found.values()} == {DONE}, [record["error"] for record in found.values() if record["error"]]
    assert {record["kind"] for record in found.values()} == {"zero_shot", "invert", "retrieve", "misalignment", "inverted_zero_shot"}
    oti, classes, texts = of_kind(found, "invert")
    assert (oti["n_items"], oti["steps"], len(oti["losses"]), len(oti["curve"])) == (12, [2, 4], 2, 4)
    assert (classes["n_items"], texts["n_items"], texts["steps"]) == (3, 200, [2])
    assert oti["losses"][-1] < oti["curve"][0]
    learnt = load_pseudo_tokens(tmp_path / "out" / oti["folder"])
    assert oti["losses"] == pytest.approx(learnt.losses.mean(axis=0, dtype=np.float64).tolist())
    assert all(0 <= score <= 100 for results in of_kind(found, "retrieve") for score in results["scores"].values())
    assert {results["n_queries"] for results in of_kind(found, "retrieve")} == {12, 200}


def test_a_retrieval_is_what_its_features_say(study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path) -> None:
    """Against a plain ranking of the pseudo-tokens' features among native ones."""
    from datasets.retrieval.table import load_retrieval
    from inversion.features import native_features

    found = study(fuse=[0.25])
    plan = make(fuse=[0.25])
    runtime, selection = start("cpu", "fp32"), select_encoder(plan.models[0], None, {})
    task = load_retrieval(plan.inversion.image_tasks[0])  # type: ignore[union-attr]
    query, gallery = (
        native_features(runtime, selection, of, task.name, task.split, OPTIONS.load, None) for of in (task.query, task.gallery)
    )
    (invert,) = of_kind(found, "invert")
    learnt = load_pseudo_tokens(tmp_path / "out" / invert["folder"])
    relevant = task.query.labels[:, None] == task.gallery.labels[None]  # type: ignore[index]
    rows = learnt.rows_for(task.query)
    native, oti = query @ gallery.T, learnt.features[rows, -1] @ gallery.T
    similarities = {"image-to-image": native, "oti-to-image_oti-r1_seed42": oti}
    similarities["oti-to-image_fuse0.25_oti-r1_seed42"] = 0.75 * native + 0.25 * oti
    for name, values in similarities.items():
        expected = 100 * mean_average_precision(values, relevant)
        assert found[f"retrieve colors_{name}"]["results"]["scores"]["mAP"] == pytest.approx(expected, abs=1e-3)
    after_two = mean_average_precision(learnt.features[rows, 0] @ gallery.T, relevant)
    steps = found["retrieve colors_oti-to-image_oti-r1_seed42"]["results"]["at_steps"]
    assert [each["step"] for each in steps] == [2, 4]
    assert steps[0]["scores"]["mAP"] == pytest.approx(100 * after_two, abs=1e-3)
    assert "at_steps" not in found["retrieve colors_oti-to-image_fuse0.25_oti-r1_seed42"]["results"]


def mean_average_precision(similarities: Any, relevant: Any) -> float:
    order = np.argsort(-similarities, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def test_what_is_done_is_not_done_again(study: Callable[..., Records], capsys: pytest.CaptureFixture[str]) -> None:
    first = study()
    capsys.readouterr()
    assert study() == first
    assert capsys.readouterr().out == ""


def test_an_interrupted_inversion_goes_on_item_by_item(
    study: Callable[..., Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(tmp_path / "whole")
    monkeypatch.setattr(inversion_work, "batch_size_for", lambda kind, device: 5)
    inverted: list[list[str]] = []
    invert = inversion_run.invert

    def stopped(tower: Any, targets: Any, names: list[str], *rest: Any) -> Any:
        if inverted:
            raise Interrupted("Stopped by SIGTERM; run again.")
        inverted.append(names)
        return invert(tower, targets, names, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(inversion_run, "invert", stopped)
        with pytest.raises(Interrupted):
            study()
    (shard,) = (tmp_path / "out").rglob("items-*.safetensors")
    kept = shard.stat().st_mtime_ns
    again = study()
    assert shard.stat().st_mtime_ns == kept
    assert len(list((tmp_path / "out").rglob("items-*.safetensors"))) == 3
    (ours,), (theirs,) = of_kind(again, "invert"), of_kind(whole, "invert")
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert ours["n_items"] == 12


def test_other_images_make_the_cells_change(make: Callable[..., Plan], study: Callable[..., Records], tmp_path: Path) -> None:
    for split, number in (("train", 2), ("test", 1)):
        write_images(tmp_path / "own" / split, 2, seed=number)
    plan = {"image_tasks": [f"imagefolder:{tmp_path / 'own'}"]}
    before = study(**plan)
    (tmp_path / "own/test/red/00.jpg").write_bytes((tmp_path / "own/test/blue/00.jpg").read_bytes())
    known = make(**plan)
    found = {str(cell): state for cell, state in states(expand(known), known, tmp_path / "out", OPTIONS)}
    assert set(found.values()) == {CHANGED}
    after = study(**plan)
    assert of_kind(after, "invert")[0]["folder"] != of_kind(before, "invert")[0]["folder"]


def test_lost_pseudo_tokens_are_learnt_again_only_where_they_are_needed(
    study: Callable[..., Records], make: Callable[..., Plan], tmp_path: Path
) -> None:

    (invert,) = of_kind(study(), "invert")
    shutil.rmtree(tmp_path / "out" / invert["folder"])
    plan = make()
    assert {state for _, state in states(expand(plan), plan, tmp_path / "out", OPTIONS)} == {DONE}
    fused = make(fuse=[0.5])
    found = {cell.kind + str("fuse" in cell.key): state for cell, state in states(expand(fused), fused, tmp_path / "out", OPTIONS)}
    assert (found["invertFalse"], found["retrieveTrue"]) == (TO_DO, TO_DO)


def test_a_failed_inversion_fails_what_needs_it_and_nothing_else(
    study: Callable[..., Records], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise UserError("The loss of 'x' is not finite.")

    with monkeypatch.context() as patched:
        patched.setattr(inversion_work, "run_job", broken)
        found = study()
    assert found["retrieve colors_image-to-image"]["state"] == DONE
    assert found["invert colors_oti-r1_seed42"]["error"] == "The loss of 'x' is not finite."
    assert found["retrieve colors_oti-to-image_oti-r1_seed42"]["state"] == FAILED
    assert "has not finished" in found["retrieve colors_oti-to-image_oti-r1_seed42"]["error"]
    assert {record["state"] for record in study(options=replace(OPTIONS, retry_failed=True)).values()} == {DONE}


def test_half_precision_is_refused(study: Callable[..., Records], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.inversion_work.quiet", lambda runtime: replace(runtime, precision="fp16"))
    assert "loss scaler" in study()["invert colors_oti-r1_seed42"]["error"]


def test_an_estimate_knows_steps_and_folders(make: Callable[..., Plan], study: Callable[..., Records], tmp_path: Path) -> None:
    plan = make()
    guessed = describe(states(expand(plan), plan, tmp_path / "out", OPTIONS), tmp_path / "out")
    assert "3 cells: 0 done, 0 failed, 3 to do, 0 changed." in guessed
    assert "a guess for 1 of them" in guessed
    study()
    more = make(seeds=[42, 43])
    known = describe(states(expand(more), more, tmp_path / "out", OPTIONS), tmp_path / "out")
    (row,) = [line for line in known.splitlines() if line.startswith("invert ")]
    assert row.endswith("done cells of the kind") and " 0.0 MB" in row


def test_models_do_not_share_pseudo_tokens(make: Callable[..., Plan], tmp_path: Path, image_folder: Path) -> None:
    models = [str(write_model(tmp_path / name, seed)) for seed, name in enumerate("ab")]
    path = write_inversion_plan(tmp_path / "two.toml", {"models": models}, image_tasks=[f"imagefolder:{image_folder}"], oti={"steps": 2})
    plan = read_plan(path)
    run_units(expand(plan), plan, tmp_path / "out", OPTIONS)
    found = [read_record(cell, tmp_path / "out") for unit in expand(plan) for cell in unit.of_kind("invert")]
    assert len({record["results"]["folder"] for record in found if record}) == 2
