"""The tables [merging]: what is read, what has defaults, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from merging.options import MergeOptions
from study.plan import FitSetting, Plan
from study.plan_file import read_plan
from study.plan_merging import MergingPlan, clean, corrupted, corruption_of
from study.plan_merging_methods import KINDS, merge_options
from tests.helpers import ROOT

SMALL = """title = "Merging"
models = ["tiny", "clip"]

[merging]
tasks = ["Digits",
         "stanford-cars"]
eval_tasks = ["Shapes-Kind"]
fine_tunes = "tuned/{task}.safetensors"

[merging.models.clip]
fine_tunes = "tanganke/clip-vit-base-patch32_{task}"

[merging.methods.ties]
scaling = [0.3, 1]
density = 0.5

[merging.methods.own]
method = "weighted_average"
weights = [[1, 2], [0.5, 0.5]]

[merging.methods.emr]
per_model = true

[merging.methods.fisher]
examples = 32

[merging.methods.layer_wise_adamerging]
adapt_steps = 3
"""
TRAINED = SMALL.replace('fine_tunes = "tuned/{task}.safetensors"\n', "").split("[merging.models")[0] + (
    '[merging.train]\ntowers = "vision"\nlr = 1e-3\nsteps = 40\n\n[merging.methods.ties]\n'
)


def read(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return read_plan(path)


def merging(tmp_path: Path, text: str = SMALL) -> MergingPlan:
    found = read(tmp_path, text).merging
    assert found is not None
    return found


def mistake(tmp_path: Path, text: str) -> str:
    """What is said of the plan, without its folder."""
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_published_names_stand_for_the_data_sets_on_the_hub(tmp_path: Path) -> None:
    of = merging(tmp_path)
    assert of.tasks == {"Digits": "Digits", "stanford-cars": "Cars@hub"}
    assert of.evaluated() == ["Digits", "Cars@hub", "Shapes-Kind"]
    assert of.names == {"Digits": "Digits", "Cars@hub": "stanford-cars", "Shapes-Kind": "Shapes-Kind"}


def test_the_sources_of_a_model_are_its_own_or_those_of_all(tmp_path: Path) -> None:
    of = merging(tmp_path)
    assert of.source("tiny", "Digits") == "tuned/Digits.safetensors"
    assert of.source("clip", "Cars@hub") == "tanganke/clip-vit-base-patch32_stanford-cars"


def test_a_method_has_all_that_it_reads_and_its_grid(tmp_path: Path) -> None:
    ties, own, emr, fisher, adapted = merging(tmp_path).methods
    shared = {"merge_func": "sum", "scope": "model", "density": 0.5}
    assert [*ties.points] == [{**shared, "scaling": 0.3}, {**shared, "scaling": 1.0}]
    assert (ties.varies, ties.data, ties.transductive, ties.per_model) == (("scaling",), "none", False, False)
    assert (own.method, [point["weights"] for point in own.points]) == ("weighted_average", [[1.0, 2.0], [0.5, 0.5]])
    assert (emr.per_model, emr.points[0]["scaling"]) == (True, 1.0)
    assert (fisher.points[0]["examples"], fisher.transductive) == (32, False)
    assert (adapted.points[0]["adapt_steps"], adapted.points[0]["adapt_lr"], adapted.transductive) == (3, None, True)
    for of in (ties, own, emr, fisher, adapted):
        assert not {"seed", "device", "save_weights", "weights_file"} & of.points[0].keys()


def test_one_list_of_weights_is_no_grid(tmp_path: Path) -> None:
    of = merging(tmp_path, SMALL.replace("[[1, 2], [0.5, 0.5]]", "[1, 2]"))
    assert [point["weights"] for point in of.methods[1].points] == [[1.0, 2.0]]


def test_options_of_a_point_are_those_of_the_command_line(tmp_path: Path) -> None:
    for method in merging(tmp_path).methods:
        assert isinstance(merge_options(method.points[0], seed=3), MergeOptions)
    assert {*KINDS} == {*MergeOptions.__dataclass_fields__, "examples"}


def test_models_may_be_trained_in_the_plan(tmp_path: Path) -> None:
    of = merging(tmp_path, TRAINED)
    assert of.train is not None
    assert (of.tuning, of.train.fit, of.train.options.towers) == ("full", FitSetting(lr=1e-3, steps=40), "vision")
    assert of.train.values("full") == {**dict(FitSetting(lr=1e-3, steps=40)), "towers": "vision"}
    assert "epochs" not in of.train.values("full")
    assert of.fine_tunes == {}


def test_corruptions_are_made_here_or_the_hubs_own(tmp_path: Path) -> None:
    text = SMALL.replace('"Digits",\n         ', "").replace(
        '["Shapes-Kind"]', '["gtsrb"]\ncorruptions = ["hub-contrast", "motion_blur-3"]'
    )
    of = merging(tmp_path, text.replace("[[1, 2], [0.5, 0.5]]", "[1]"))
    assert of.evaluated("hub-contrast") == ["Cars@hub-contrast", "GTSRB@hub-contrast"]
    assert of.evaluated("motion_blur-3") == ["Cars@hub+motion_blur-3", "GTSRB@hub+motion_blur-3"]
    assert of.names["Cars@hub-contrast"] == "stanford-cars+hub-contrast"


@pytest.mark.parametrize("name", ["Digits", "Cars@hub", "GTSRB@hub"])
@pytest.mark.parametrize("kind", ["motion_blur-3", "contrast-5-cifar", "hub-spatter"])
def test_a_corruption_is_told_from_the_name_that_has_it(name: str, kind: str) -> None:
    bad = corrupted(name, kind)
    assert (corruption_of(bad), clean(bad)) == (kind, "Digits@hub" if kind == "hub-spatter" and name == "Digits" else name)
    assert (corruption_of(name), clean(name)) == (None, name)


MISTAKES = {
    "method": ("[merging.methods.ties]", "[merging.methods.tie]", "line 13", "did you mean 'ties'"),
    "option": ("density = 0.5", "drop_rate = 0.5", "line 15", "drop_rate"),
    "range": ("density = 0.5", "density = 5", "line 15", "'density' is 5"),
    "type": ("density = 0.5", 'density = "much"', "line 15", "'density' must be a number"),
    "choice": ("density = 0.5", 'scope = "layer"', "line 15", "scope"),
    "twice": ("density = 0.5", "density = [0.5, 0.5]", "line 15", "twice"),
    "weights": ("[[1, 2], [0.5, 0.5]]", "[1, 2, 3]", "line 19", "3 numbers for 2 models"),
    "per_model": ("[merging.methods.emr]", "[merging.methods.magmax]", "line 22", "gives one encoder for all tasks"),
    "examples": ("adapt_steps = 3", "examples = 3", "line 28", "examples"),
    "label": ("[merging.methods.own]", '[merging.methods."a b"]', "line 18", "letters, digits"),
    "task": ('"Digits"', '"Digit"', "line 5", "did you mean 'Digits'"),
    "repeated": ('["Shapes-Kind"]', '["Digits"]', "line 7", "has already"),
    "corruption": ('["Shapes-Kind"]', '["Shapes-Kind"]\ncorruptions = ["blurred"]', "line 8", "KIND-SEVERITY"),
    "hub corruption": ('["Shapes-Kind"]', '["Shapes-Kind"]\ncorruptions = ["hub-fog"]', "line 8", "hub keeps no 'hub-fog'"),
    "not of this set": ('["Shapes-Kind"]', '["Shapes-Kind"]\ncorruptions = ["hub-contrast"]', "line 8", "Digits"),
    "severity": ('["Shapes-Kind"]', '["Shapes-Kind"]\ncorruptions = ["contrast-9"]', "line 8", "from 1 to 5"),
    "template": ('"tuned/{task}.safetensors"', '"tuned/x.safetensors"', "line 8", "{task}"),
    "nowhere": ('fine_tunes = "tuned/{task}.safetensors"\n', "", "line 4", "'tiny'"),
    "model": ("[merging.models.clip]", "[merging.models.siglip]", "line 10", "not among the models"),
    "key": ("fine_tunes = \"tuned", "finetunes = \"tuned", "line 8", "fine_tunes"),
    "both": ("[merging.methods.ties]", "[merging.train]\nlr = 1e-3\n[merging.methods.ties]", "line 8", "trained here"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, case: str) -> None:
    before, after, line, said = MISTAKES[case]
    assert SMALL.count(before) == 1
    message = mistake(tmp_path, SMALL.replace(before, after))
    assert message.startswith(f"x.toml, {line}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("lr = 1e-3", "lr = [1e-3, 1e-4]", "'lr' has several values"),
        ("lr = 1e-3", "rank = 4", "'rank'"),
        ("lr = 1e-3", "epochs = 4", "give one of them"),
        ('towers = "vision"', 'tuning = "probe"', "nothing to merge"),
        ('towers = "vision"', 'towers = "image"', "towers"),
    ],
)
def test_a_mistake_in_the_training_is_told(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert said in mistake(tmp_path, TRAINED.replace(before, after))


def test_merging_needs_tasks_and_methods(tmp_path: Path) -> None:
    top = 'title = "x"\nmodels = ["tiny"]\n[merging]\n'
    assert "no 'tasks'" in mistake(tmp_path, top)
    assert "no 'methods'" in mistake(tmp_path, top + 'tasks = ["Digits"]\n')
    assert "merges by nothing" in mistake(tmp_path, top + 'tasks = ["Digits"]\n[merging.methods]\n')


def test_keys_of_merging_are_told_where_they_belong(tmp_path: Path) -> None:
    assert "it belongs in [merging]" in mistake(tmp_path, 'fine_tunes = "x"\n' + SMALL)


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "plans").glob("merging_*.toml"))])
def test_shipped_plans_are_read(name: str) -> None:
    assert read_plan(ROOT / "plans" / f"{name}.toml").merging is not None
