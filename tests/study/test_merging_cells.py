"""The cells of merging: which there are, what they are called, what --only takes along."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from study.cells import Cell, Unit, needs, select
from study.expansion import expand
from study.plan_file import read_plan
from tests.study.small_plans import write_tables

MERGING: dict[str, Any] = {
    "tasks": ["Digits", "Shapes-Color"],
    "fine_tunes": "tuned/{task}.safetensors",
    "methods": {"task_arithmetic": {"scaling": [0.3, 0.5]}},
}
TRAINED = {"fine_tunes": None, "train": {"towers": "vision", "lr": 1e-3}}


def units(tmp_path: Path, top: dict[str, Any] | None = None, **changes: Any) -> list[Unit]:
    """Those of a plan of merging with these changes; None leaves a key out."""
    merging = {key: value for key, value in {**MERGING, **changes}.items() if value is not None}
    path = write_tables(tmp_path / "x.toml", {"title": "Merging", "models": ["tiny"], **(top or {})}, {"merging": merging})
    return expand(read_plan(path))


def told(found: list[Unit]) -> dict[str, list[str]]:
    """The cells by the names of their units without a hash."""
    return {re.sub("-[0-9a-f]{8}$", "", unit.name): list(map(str, unit.cells)) for unit in found}


def merges(found: list[Unit]) -> list[Cell]:
    return [cell for unit in found for cell in unit.of_kind("merge")]


def test_untuned_fine_tuned_and_merged_models_make_units_of_their_own(tmp_path: Path) -> None:
    assert told(units(tmp_path, eval_tasks=["Glyphs-Greek"])) == {
        **{f"tiny_{task}": [f"zero_shot tiny {task}"] for task in ("Digits", "Shapes-Color", "Glyphs-Greek")},
        **{
            f"tiny_single-{task}": [f"single_test tiny single-{task} on {other}" for other in ("Digits", "Shapes-Color", "Glyphs-Greek")]
            for task in ("Digits", "Shapes-Color")
        },
        **{
            f"tiny_task_arithmetic_scaling{scaling}_seed0": [
                f"merge tiny task_arithmetic scaling{scaling}",
                *(f"merged_test tiny task_arithmetic scaling{scaling} on {task}" for task in ("Digits", "Shapes-Color", "Glyphs-Greek")),
            ]
            for scaling in (0.3, 0.5)
        },
    }


def test_models_that_are_trained_here_make_one_unit_with_their_merges(tmp_path: Path) -> None:
    found = units(tmp_path, {"seeds": [0, 7]}, **TRAINED)
    assert [unit.name for unit in found] == ["tiny_Digits", "tiny_Shapes-Color", "tiny_merging_seed0", "tiny_merging_seed7"]
    kinds = [cell.kind for cell in found[-1].cells]
    assert kinds == ["train"] * 2 + ["single_test"] * 4 + ["merge", "merged_test", "merged_test"] * 2
    train = found[-1].cells[0].key
    assert (train["tuning_name"], train["task"], train["seed"], train["setting"]["towers"]) == ("fine-tune", "Digits", 7, "vision")


def test_zero_shot_accuracy_is_asked_for_once(tmp_path: Path) -> None:
    found = units(tmp_path, {"tasks": ["Digits"], "measures": ["iimm"]})
    assert [str(cell) for unit in found for cell in unit.of_kind("zero_shot")] == ["zero_shot tiny Digits", "zero_shot tiny Shapes-Color"]


def test_what_adapts_is_merged_for_every_corruption_and_tested_on_it(tmp_path: Path) -> None:
    found = units(tmp_path, corruptions=["contrast-3"], methods={"ties": {}, "task_wise_adamerging": {}, "fisher": {}})
    of = {(cell.key["merge"]["label"], cell.key["merge"]["adapt"]) for cell in merges(found)}
    assert of == {("ties", None), ("fisher", None), ("task_wise_adamerging", None), ("task_wise_adamerging", "contrast-3")}
    tests = [cell.key for unit in found for cell in unit.of_kind("merged_test")]
    on = {name: [key["eval_task"] for key in tests if (key["merge"]["label"], key["merge"]["adapt"]) == name] for name in of}
    clean, corrupted = ["Digits", "Shapes-Color"], ["Digits+contrast-3", "Shapes-Color+contrast-3"]
    assert on["ties", None] == on["fisher", None] == clean + corrupted
    assert (on["task_wise_adamerging", None], on["task_wise_adamerging", "contrast-3"]) == (clean, corrupted)


def test_encoders_of_single_tasks_are_tested_on_these(tmp_path: Path) -> None:
    found = units(tmp_path, eval_tasks=["Glyphs-Greek"], corruptions=["contrast-3"], methods={"emr": {"per_model": True}})
    (unit,) = [unit for unit in found if unit.of_kind("merge")]
    names = [cell.key["eval_task"] for cell in unit.of_kind("merged_test")]
    assert names == ["Digits", "Shapes-Color", "Digits+contrast-3", "Shapes-Color+contrast-3"]


def test_the_key_says_all_that_decides_a_merge(tmp_path: Path) -> None:
    first = merges(units(tmp_path))[0].key
    options = {"scaling": 0.3}
    said = {"label": "task_arithmetic", "method": "task_arithmetic", "options": options, "tasks": ["Digits", "Shapes-Color"], "adapt": None}
    assert first == {"model": "tiny", "merge": said, "seed": 0}


def test_only_takes_along_the_merge_that_a_test_is_of(tmp_path: Path) -> None:
    (unit,) = select(units(tmp_path, **TRAINED), "merged_test/*scaling0.5*to_Digits*")
    assert [cell.kind for cell in unit.cells] == ["train", "train", "merge", "merged_test"]
    (unit,) = select(units(tmp_path, **TRAINED), "single_test/*single-Digits_to_Shapes*")
    assert [(cell.kind, cell.key.get("task")) for cell in unit.cells] == [("train", "Digits"), ("single_test", None)]
    (unit,) = select(units(tmp_path), "merged_test/*scaling0.5*to_Digits*")
    assert [cell.kind for cell in unit.cells] == ["merge", "merged_test"]


def test_every_need_comes_earlier_in_its_unit(tmp_path: Path) -> None:
    (unit,) = [unit for unit in units(tmp_path, **TRAINED) if unit.of_kind("merge")]
    for number, cell in enumerate(unit.cells):
        assert not any(needs(cell, later) for later in unit.cells[number:])
        assert cell.kind == "train" or any(needs(cell, earlier) for earlier in unit.cells[:number])


def test_units_have_names_of_their_own(tmp_path: Path) -> None:
    methods = {"ties": {"density": [0.1, 0.2]}, "dare_ties": {}}
    found = units(tmp_path, {"seeds": [0, 1], "models": ["tiny", "clip"]}, methods=methods)
    assert len({unit.name for unit in found}) == len(found)
    shards = [select(found, shard=(number, 3)) for number in (1, 2, 3)]
    assert sorted(unit.name for shard in shards for unit in shard) == sorted(unit.name for unit in found)
