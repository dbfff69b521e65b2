"""The cells of inversion: which there are, what they are called, what --only takes along."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from study.cells import Cell, Unit, select
from study.expansion import expand
from study.plan import Plan
from study.plan_file import read_plan
from tests.helpers import ROOT
from tests.study.small_plans import write_inversion_plan

INVERSION: dict[str, Any] = {"image_tasks": ["Digits"], "text_tasks": ["Shapes-Captions"], "zero_shot_tasks": ["Digits", "Shapes-Color"]}
EARLIER = {  # of every unit and cell of the plans that were there before inversion: finished studies must stay done
    "demo": "5c58252bb85d348a",
    "geometry": "8adfec01a736b30e",
    "iimm_models": "f96d90af3df28ca8",
    "iimm_peft": "91ddad10bfe18581",
}


def plan(tmp_path: Path, top: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """The plan with these changes."""
    return read_plan(write_inversion_plan(tmp_path / "x.toml", {"models": ["tiny"], **(top or {})}, **{**INVERSION, **changes}))


def told(units: list[Unit]) -> dict[str, list[str]]:
    return {unit.name: [str(cell) for cell in unit.cells] for unit in units}


@pytest.mark.parametrize("name", EARLIER)
def test_earlier_plans_keep_the_names_of_their_cells(name: str) -> None:
    units = expand(read_plan(ROOT / "plans" / f"{name}.toml"))
    lines = [f"{unit.name} {cell.kind}/{cell.name} {cell}" for unit in units for cell in unit.cells]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == EARLIER[name]


def test_native_results_and_every_inversion_make_units_of_their_own(tmp_path: Path) -> None:
    found = plan(tmp_path, misalignment=["Digits"], project=["pca"], fuse=[0.5], oti={"num_pseudo_tokens": [1, 4]})
    assert told(expand(found)) == {
        "tiny_Digits_native": ["zero_shot tiny Digits", "retrieve tiny Digits image to image", "retrieve tiny Digits image to image pca"],
        **{
            f"tiny_Digits_oti-r{number}_seed42": [
                f"invert tiny Digits oti R={number} seed 42",
                f"retrieve tiny Digits oti to image R={number} seed 42",
                f"retrieve tiny Digits oti to image fused 0.5 R={number} seed 42",
                f"misalignment tiny Digits oti R={number} seed 42",
                f"inverted_zero_shot tiny Digits oti R={number} seed 42",
            ]
            for number in (1, 4)
        },
        "tiny_Digits_ovi-r1_seed42": ["invert tiny Digits ovi R=1 seed 42", "inverted_zero_shot tiny Digits ovi R=1 seed 42"],
        "tiny_Shapes-Captions_native": ["retrieve tiny Shapes-Captions text to text", "retrieve tiny Shapes-Captions text to text pca"],
        "tiny_Shapes-Captions_ovi-r1_seed42": [
            "invert tiny Shapes-Captions ovi R=1 seed 42",
            "retrieve tiny Shapes-Captions ovi to text R=1 seed 42",
            "retrieve tiny Shapes-Captions ovi to text fused 0.5 R=1 seed 42",
        ],
        "tiny_Shapes-Color_native": ["zero_shot tiny Shapes-Color"],
        "tiny_Shapes-Color_oti-r1_seed42": [
            "invert tiny Shapes-Color oti R=1 seed 42",
            "inverted_zero_shot tiny Shapes-Color oti R=1 seed 42",
        ],
        "tiny_Shapes-Color_oti-r4_seed42": [
            "invert tiny Shapes-Color oti R=4 seed 42",
            "inverted_zero_shot tiny Shapes-Color oti R=4 seed 42",
        ],
        "tiny_Shapes-Color_ovi-r1_seed42": [
            "invert tiny Shapes-Color ovi R=1 seed 42",
            "inverted_zero_shot tiny Shapes-Color ovi R=1 seed 42",
        ],
    }


def test_queries_are_inverted_or_class_names(tmp_path: Path) -> None:
    sides = {unit.name: cell.key["side"] for unit in expand(plan(tmp_path)) for cell in unit.of_kind("invert")}
    assert sides["tiny_Digits_oti-r1_seed42"] == sides["tiny_Shapes-Captions_ovi-r1_seed42"] == "query"
    assert sides["tiny_Digits_ovi-r1_seed42"] == "classes"


def test_iso_is_run_where_it_is_known_what_it_drops(tmp_path: Path) -> None:
    found = plan(tmp_path, {"models": ["tiny", "clip"]}, project=["iso"], models={"tiny": {"iso_image": [3, 4]}})
    keys = [cell.key for unit in expand(found) for cell in unit.cells if "project" in cell.key]
    assert [(key["model"], key["query"], key["drop"]) for key in keys] == [
        ("tiny", "image", [3, 4]),
        ("clip", "image", [150, 50]),
        ("clip", "text", [20, 100]),
    ]


def test_zero_shot_accuracy_that_has_a_cell_already_gets_no_second_one(tmp_path: Path) -> None:
    found = plan(tmp_path, {"tasks": ["Digits"], "measures": ["gap"]})
    cells = [cell.name for unit in expand(found) for cell in unit.of_kind("zero_shot")]
    assert len(cells) == len(set(cells)) == 2


def test_every_value_of_an_inversion_is_in_the_name(tmp_path: Path) -> None:
    def names(**setting: Any) -> set[str]:
        return {cell.name for unit in expand(plan(tmp_path, oti=setting)) for cell in unit.of_kind("invert") if "oti-" in cell.name}

    changes: list[dict[str, Any]] = [{"lr": 0.1}, {"weight_decay": 0}, {"steps": 5}, {"snapshots": [2]}, {"template": "{}"}]
    found = [names(), *(names(**change) for change in changes)]
    assert len(set().union(*found)) == sum(map(len, found))


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [
        ("retrieve/*Digits*fuse*", ["invert", "retrieve"]),
        ("inverted_zero_shot/*Digits*ovi*", ["invert", "inverted_zero_shot"]),
        ("retrieve/*Digits_image-to-image*", ["retrieve"]),
        ("tiny_Shapes-Captions_ovi-r1_seed42", ["invert", "retrieve", "retrieve"]),
    ],
)
def test_only_takes_the_inversion_along(tmp_path: Path, pattern: str, kinds: list[str]) -> None:
    units = select(expand(plan(tmp_path, fuse=[0.5])), only=pattern)
    assert [cell.kind for unit in units for cell in unit.cells] == kinds


def test_names_are_read_as_what_they_are_of() -> None:
    inversion = {"kind": "oti", "num_pseudo_tokens": 4, "seed": 7}
    cell = Cell(
        "retrieve", {"model": "clip", "task": "Cars@coop", "query": "oti", "gallery": "image", "fuse": 0.25, "inversion": inversion}
    )
    assert cell.readable == "clip_Cars-coop_oti-to-image_fuse0.25_oti-r4_seed7"


def test_the_shipped_plans_ask_for_what_the_paper_has() -> None:
    units = expand(read_plan(ROOT / "plans" / "inversion_dynamics.toml"))
    assert sorted(cell.key["inversion"]["num_pseudo_tokens"] for unit in units for cell in unit.of_kind("invert")) == [1, 2, 4, 8, 16]
    tiny = {cell.kind for unit in expand(read_plan(ROOT / "plans" / "inversion_tiny.toml")) for cell in unit.cells}
    assert tiny == {"zero_shot", "invert", "retrieve", "misalignment", "inverted_zero_shot"}
