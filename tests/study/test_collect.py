"""From the cells' files to tables."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.tuning_options import TuningOptions
from study.cells import Cell
from study.collect import collect
from study.expansion import expand
from study.plan import FitSetting, Plan, Setting
from tests.study.small_study import accuracy_of, iimm_of, small_plan, validation_of, write_cell, write_small_study, zero_shot_of

TASKS = ("DTD", "EuroSAT", "MNIST")


def plan_of(**changes: Any) -> Plan:
    """One model, one tuning, three tasks to train on and one more to test on, one seed."""
    only_full = small_plan().tunings[:1]
    known: dict[str, Any] = {"models": ("clip",), "tunings": only_full, "tasks": TASKS, "eval_tasks": (*TASKS, "SVHN"), "seeds": (0,)}
    return small_plan(**{**known, **changes})


def one(plan: Plan, wanted: Callable[[Cell], bool]) -> Cell:
    """The first such cell."""
    return next(cell for unit in expand(plan) for cell in unit.cells if wanted(cell))


def test_every_cell_is_a_row_with_the_path_of_its_file(tmp_path: Path) -> None:
    plan = write_small_study(tmp_path, plan_of())
    of = collect(plan, tmp_path)
    assert of.complete
    assert [len(rows) for rows in (of.zero_shot, of.embeds, of.scores, of.trainings, of.tests)] == [4, 3, 18, 6, 12]
    for rows in (of.zero_shot, of.embeds, of.scores, of.trainings, of.tests):
        for row in rows:  # type: ignore[attr-defined]
            key = json.loads((tmp_path / row["cell"]).read_text())["key"]
            assert key["model"] == row["model"] == "clip" and key["task"] == row["task"]


def test_rows_hold_what_the_cells_say(tmp_path: Path) -> None:
    of = collect(write_small_study(tmp_path, plan_of()), tmp_path)
    assert [(row["task"], row["top1"]) for row in of.zero_shot] == [(task, zero_shot_of("clip", task)) for task in (*TASKS, "SVHN")]
    assert (of.embeds[1]["n_images"], of.embeds[1]["text_seconds"]) == (5000, 0.5)
    assert set(of.embeds[0]["histograms"]) == {"same_class", "different_class", "image_text_right", "image_text_wrong"}
    first = of.scores[0]
    assert (first["measure"], first["score"], first["interval"], first["error"]) == ("iimm", iimm_of("clip", "DTD"), "jackknife", "")
    training, test = of.trainings[1], of.tests[1]
    assert (training["setting"], training["values"]["lr"]) == ("lr0.0001", 1e-4)
    assert training["best_validation"] == validation_of("clip", "full", "DTD", 0, 1)
    assert (test["task"], test["eval_task"], test["top1"]) == ("DTD", "EuroSAT", accuracy_of("clip", "full", "DTD", 0, "EuroSAT"))
    assert test["chosen"] in ("lr0.001", "lr0.0001") and test["values"]["optimizer"] == "SGD" and "label" not in test["values"]


def test_missing_and_failed_cells_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    plan = plan_of()
    missing = one(plan, lambda cell: cell.kind == "embed")
    failed = one(plan, lambda cell: cell.kind == "test" and cell.key["eval_task"] == "SVHN")
    write_small_study(tmp_path, plan, lambda cell: cell == missing)
    write_cell(failed, tmp_path, {}, state="failed", error="RuntimeError: out of memory")
    of = collect(plan, tmp_path)
    assert of.missing == [missing.path(Path()).as_posix()] and not of.complete
    (row,) = of.failed
    assert (row["cell"], row["error"]) == (failed.path(Path()).as_posix(), "RuntimeError: out of memory")
    assert (row["kind"], row["name"]) == ("test", failed.name)
    assert (len(of.embeds), len(of.tests)) == (2, 11)


def test_a_folder_that_is_not_there_has_nothing_done(tmp_path: Path) -> None:
    plan = plan_of()
    of = collect(plan, tmp_path / "nothing")
    assert len(of.missing) == sum(len(unit.cells) for unit in expand(plan)) and not of.tests


@pytest.mark.parametrize("text", ["", '{"format": "clips', "[]", '{"format": "another"}'])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, text: str) -> None:
    plan = write_small_study(tmp_path, plan_of())
    cell = one(plan, lambda cell: cell.kind == "zero_shot")
    cell.path(tmp_path).write_text(text)
    assert collect(plan, tmp_path).missing == [cell.path(Path()).as_posix()]


def test_files_of_another_plan_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    write_small_study(tmp_path, plan_of())
    of = collect(plan_of(tasks=TASKS[:1], eval_tasks=TASKS[:1]), tmp_path)
    assert of.complete and {row["task"] for row in (*of.zero_shot, *of.tests)} == {"DTD"}


def test_a_score_that_is_not_defined_is_a_row_with_its_reason(tmp_path: Path) -> None:
    plan = write_small_study(tmp_path, plan_of())
    cell = one(plan, lambda cell: cell.kind == "measure" and cell.key["measure"] == "hscore")
    write_cell(cell, tmp_path, {"error": "needs at least 2 classes with images"})
    (row,) = [row for row in collect(plan, tmp_path).scores if row["error"]]
    assert (row["measure"], row["score"], row["low"], row["interval"]) == ("hscore", None, None, "none")
    assert row["error"] == "needs at least 2 classes with images"


def test_settings_are_called_as_the_plan_calls_them_now(tmp_path: Path) -> None:
    plan = write_small_study(tmp_path, plan_of())
    (tuning,) = plan.tunings
    wider = [*tuning.grid, Setting(TuningOptions(), FitSetting(lr=1e-3, wd=0.1))]
    grid = tuple(replace(setting, varies=("lr", "wd")) for setting in wider)
    of = collect(replace(plan, tunings=(replace(tuning, grid=grid),)), tmp_path)
    assert len(of.missing) == len(TASKS)  # the new setting
    assert {row["setting"] for row in of.trainings} == {"lr0.001 wd0.0001", "lr0.0001 wd0.0001"}
    assert {row["chosen"] for row in of.tests} <= {"lr0.001 wd0.0001", "lr0.0001 wd0.0001"}
