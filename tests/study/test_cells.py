"""Plans as cells: which there are, what they are called, how they are shared out, when they count as done."""

import json
import subprocess
import sys

import pytest

from common.errors import UserError
from study.cells import CHANGED, DONE, FAILED, FORMAT, KINDS, TO_DO, Cell, hash_of, read_record, select, state_of
from study.expansion import expand
from study.plan_file import read_plan
from tests.helpers import ROOT
from tests.study.small_plans import TRAINING, write_plan

TASKS = ["Digits", "Shapes-Color"]


@pytest.fixture
def plan(tmp_path):
    """A function: the plan with these changes."""

    def make(**changes):
        return read_plan(write_plan(tmp_path / "small.toml", **{"models": ["tiny"], "tasks": TASKS, **changes}))

    return make


def cells(plan):
    return [cell for unit in expand(plan) for cell in unit.cells]


def told(plan):
    return [str(cell) for cell in cells(plan)]


def test_measures_and_trainings_make_units_of_their_own(plan):
    units = {unit.name: [str(cell) for cell in unit.cells] for unit in expand(plan(eval_tasks=["Glyphs-Greek"], seeds=[3]))}
    assert units["tiny_Digits"] == ["zero_shot tiny Digits", "embed tiny Digits", "measure tiny Digits iimm", "measure tiny Digits gap"]
    assert units["tiny_Glyphs-Greek"] == ["zero_shot tiny Glyphs-Greek"]
    assert units["tiny_lora_Digits_seed3"] == [
        "train tiny lora Digits lr0.01 seed 3",
        "train tiny lora Digits lr0.001 seed 3",
        "test tiny lora Digits on Digits seed 3",
        "test tiny lora Digits on Shapes-Color seed 3",
        "test tiny lora Digits on Glyphs-Greek seed 3",
    ]
    assert list(units) == [
        *("tiny_Digits", "tiny_Shapes-Color", "tiny_Glyphs-Greek"),
        *("tiny_lora_Digits_seed3", "tiny_lora_Shapes-Color_seed3", "tiny_probe_Digits_seed3", "tiny_probe_Shapes-Color_seed3"),
    ]


def test_a_probe_is_tested_only_where_it_knows_the_classes(plan):
    tests = [cell for cell in cells(plan(eval_tasks=["Digits+contrast-3"])) if cell.kind == "test" and cell.key["tuning_name"] == "probe"]
    pairs = [(cell.key["task"], cell.key["eval_task"]) for cell in tests]
    assert pairs == [("Digits", "Digits"), ("Digits", "Digits+contrast-3"), ("Shapes-Color", "Shapes-Color")]


def test_without_tunings_nothing_is_trained(plan):
    assert {cell.kind for cell in cells(plan(tunings={}, training={}))} == {"zero_shot", "embed", "measure"}


def test_only_full_tuning_is_applied_to_all_models(plan):
    found = told(plan(models=["tiny", "clip"], tuned_models=["tiny"], tunings={"full": {}, "lora": {}}))
    assert any(line.startswith("train clip full") for line in found)
    assert any(line.startswith("train tiny lora") for line in found)
    assert not any("clip lora" in line for line in found)


def test_every_cell_has_a_file_of_its_own(plan, tmp_path):
    grid = {"lora": {"rank": [2, 4], "wd": [0.1, 0.01]}, "lora_small": {"tuning": "lora", "rank": 1}}
    inversion = {"image_tasks": TASKS, "zero_shot_tasks": TASKS, "misalignment": TASKS, "fuse": [0.5], "seeds": [1, 2]}
    methods = {"ties": {"density": [0.1, 0.2]}, "own": {"method": "ties"}, "emr": {"per_model": True}, "wemoe": {}}
    merging = {"tasks": TASKS, "corruptions": ["contrast-3"], "train": {"lr": 1e-3}, "methods": methods}
    found = cells(plan(tunings=grid, seeds=[0, 1], models=["tiny", "clip"], inversion=inversion, merging=merging))
    paths = [cell.path(tmp_path) for cell in found]
    assert len(set(paths)) == len(paths)
    assert {path.parent.name for path in paths} == set(KINDS)
    assert all(len(path.name) < 200 for path in paths)


def test_names_do_not_depend_on_what_is_on_this_machine():
    """A folder that is a model here may be missing where the report is made."""
    cell = Cell("zero_shot", {"model": "local-dir:/nowhere/at all/my model", "task": "imagefolder:/nowhere/birds"})
    assert cell.readable == "my-model_birds"
    other = Cell("zero_shot", {**cell.key, "task": "imagefolder:/elsewhere/birds"})
    assert other.readable == cell.readable
    assert other.name != cell.name


def test_units_of_folders_of_one_name_have_names_of_their_own(plan, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "birds").mkdir(parents=True)
    units = expand(plan(tasks=[f"imagefolder:{tmp_path / place / 'birds'}" for place in ("a", "b")]))
    assert len({unit.name for unit in units}) == len(units)


def test_a_longer_grid_keeps_the_files_of_the_shorter_one(plan):
    """The label of a setting says what varies, so it changes; the training does not."""
    one = [cell for cell in cells(plan(tunings={"lora": {"rank": 2}})) if cell.kind == "train"]
    two = [cell for cell in cells(plan(tunings={"lora": {"rank": [2, 4]}})) if cell.kind == "train"]
    assert {cell.name for cell in one} < {cell.name for cell in two}
    assert {cell.key["setting"]["label"] for cell in one} == {"lr0.01", "lr0.001"}
    assert "lr0.01 r2" in {cell.key["setting"]["label"] for cell in two}


def test_shards_are_disjoint_and_complete(plan):
    units = expand(plan(seeds=[0, 1, 2]))
    shards = [select(units, shard=(number, 4)) for number in range(1, 5)]
    assert sorted(unit.name for part in shards for unit in part) == sorted(unit.name for unit in units)
    assert [unit.name for unit in shards[1]] == [unit.name for unit in units[1::4]]


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [
        ("measure/*Digits_gap*", ["embed", "measure"]),
        ("test/*lora*to_Shapes*", ["train", "train", "test", "train", "train", "test"]),
        ("tiny_probe_Digits_seed0", ["train", "test"]),
        ("*lr0.001*", ["train", "train"]),
    ],
)
def test_only_selects_cells_with_what_they_need(plan, pattern, kinds):
    assert [cell.kind for unit in select(expand(plan()), only=pattern) for cell in unit.cells] == kinds


def test_only_that_matches_nothing_is_a_mistake(plan):
    with pytest.raises(UserError, match=r"No cell is called 'Digit';.*'\*Digit\*' would match"):
        select(expand(plan()), only="Digit")


def test_states(tmp_path):
    cell, inputs = Cell("zero_shot", {"model": "tiny", "task": "Digits"}), {"weights_sha256": "a", "fingerprint": "b"}
    record = {"format": FORMAT, "state": DONE, "error": None, "inputs_sha256": hash_of(inputs), "results": {}}
    assert state_of(None, inputs) == TO_DO
    assert state_of(record, dict(reversed(inputs.items()))) == DONE
    assert state_of(record, {**inputs, "weights_sha256": "c"}) == CHANGED
    assert state_of(record, None) == DONE  # its images are gone; what was done with them stands
    assert state_of({**record, "state": FAILED}, inputs) == FAILED
    assert read_record(cell, tmp_path) is None
    cell.path(tmp_path).parent.mkdir(parents=True)
    for damaged in ("{", "[]", json.dumps({"format": "another/1"})):
        cell.path(tmp_path).write_text(damaged)
        assert read_record(cell, tmp_path) is None
    cell.path(tmp_path).write_text(json.dumps(record))
    assert read_record(cell, tmp_path) == record


def test_planning_does_not_import_torch(tmp_path):
    path = write_plan(tmp_path / "small.toml", training=TRAINING, models=["tiny"], tasks=TASKS)
    code = f"""
import sys
from pathlib import Path
from study.expansion import expand
from study.plan_file import read_plan
import study.run, study.estimate
assert expand(read_plan(Path({str(path)!r})))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
