"""Plans as files: what is read, what the shipped ones say, and every mistake with its line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from study.plan import FitSetting, Plan
from study.plan_file import read_plan
from tests.helpers import QUIET, ROOT

TINY = """title = "A small one"
about = "For tests."
models = ["tiny"]
tasks = ["Digits",
         "Shapes-Color"]
eval_tasks = ["Shapes-Kind"]
seeds = [0, 7]
measures = ["IIMM", "image_image"] # the released code's name for the first
val_p = 0.2

[training]
epochs = 2
optimizer = "AdamW"
lr = [1e-3, 1e-4]
wd = 0

[tunings.full]

[tunings.small_lora]
tuning = "lora"
lr = 1
rank = [2, 4]
lora_mlp = [false, true]
"""
PLANS = ROOT / "plans"
NAMES = [path.stem for path in sorted(PLANS.glob("*.toml"))]


def read(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return read_plan(path)


def mistake(tmp_path: Path, text: str) -> str:
    """What is said of the plan, without its folder."""
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_a_plan_is_read_as_it_is_written(tmp_path: Path) -> None:
    plan = read(tmp_path, TINY)
    assert (plan.path, plan.title, plan.about) == (tmp_path / "x.toml", "A small one", "For tests.")
    assert (plan.models, plan.tasks, plan.seeds, plan.val_p) == (("tiny",), ("Digits", "Shapes-Color"), (0, 7), 0.2)
    assert plan.eval_tasks == ("Digits", "Shapes-Color", "Shapes-Kind")
    assert plan.measures == ("iimm", "image_image")
    assert [(tuning.name, tuning.tuning) for tuning in plan.tunings] == [("full", "full"), ("small_lora", "lora")]


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    plan = read(tmp_path, 'title = "x"\nmodels = ["tiny", "clip"]\ntasks = ["Digits"]\nmeasures = ["gap", "wrong_label"]\n')
    assert (plan.about, plan.eval_tasks, plan.tunings, plan.tuned_models) == ("", ("Digits",), (), ("tiny", "clip"))
    assert (plan.seeds, plan.data_dir, plan.prompts, plan.val_p, plan.published) == ((0,), Path("data"), None, 0.1, None)
    assert (plan.predictor, plan.components) == ("gap", ("wrong_label",))


def test_a_list_is_a_grid_whose_last_key_runs_fastest(tmp_path: Path) -> None:
    full, lora = read(tmp_path, TINY).tunings
    assert [setting.label for setting in full.grid] == ["lr0.001", "lr0.0001"]
    assert [setting.label for setting in lora.grid] == ["r2 no-mlp", "r2 mlp", "r4 no-mlp", "r4 mlp"]
    assert [(setting.options.rank, setting.options.lora_mlp) for setting in lora.grid] == [(2, False), (2, True), (4, False), (4, True)]


def test_a_tunings_table_overrides_the_training_table(tmp_path: Path) -> None:
    full, lora = read(tmp_path, TINY).tunings
    assert full.grid[0].fit == FitSetting(epochs=2, optimizer="AdamW", lr=1e-3, wd=0)
    assert {setting.fit for setting in lora.grid} == {FitSetting(epochs=2, optimizer="AdamW", lr=1, wd=0)}


def test_names_are_brought_to_one_spelling(tmp_path: Path) -> None:
    text = TINY.replace('["tiny"]', '["ViT-B-32-quickgelu/openai"]').replace('"Shapes-Kind"', '"EuroSAT@standard", "DTD@paper+contrast-3"')
    plan = read(tmp_path, text)
    assert plan.models == ("clip",)
    assert plan.eval_tasks[2:] == ("EuroSAT", "DTD@paper+contrast-3")


def test_whole_numbers_where_numbers_are_meant_are_the_same_setting(tmp_path: Path) -> None:
    plan = read(tmp_path, TINY)
    assert [repr(plan.tunings[1].grid[0].fit[name]) for name in ("lr", "wd", "epochs")] == ["1.0", "0.0", "2"]


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_plans_are_valid_and_tell_why(name: str) -> None:
    plan = read_plan(PLANS / f"{name}.toml")
    assert plan.about
    assert len({(tuning.name, setting.label) for tuning in plan.tunings for setting in tuning.grid}) == sum(
        len(tuning.grid) for tuning in plan.tunings
    )


def test_the_papers_plans_have_its_grids() -> None:
    models, tunings = read_plan(PLANS / "iimm_models.toml"), read_plan(PLANS / "iimm_peft.toml")
    assert (models.models, tunings.models) == (("clip", "siglip", "coca", "eva02"), ("clip",))
    assert models.tasks == tunings.tasks
    assert len(models.tasks) == 9
    assert {tuning.name: len(tuning.grid) for tuning in models.tunings} == {"full": 12}
    assert {tuning.name: len(tuning.grid) for tuning in tunings.tunings} == {
        "full": 12,
        "bias": 12,
        "attention": 12,
        "lora": 48,
        "adapter": 48,
    }
    for tuning in tunings.tunings:
        fits = {(setting.fit.epochs, setting.fit.optimizer, setting.fit.batch_size, setting.fit.schedule) for setting in tuning.grid}
        assert fits == {(30, "SGD", 128, "constant")}


def test_the_demo_has_every_tuning_and_needs_no_files() -> None:
    plan = read_plan(PLANS / "demo.toml")
    assert {tuning.tuning for tuning in plan.tunings} == {"full", "lora", "bias", "attention", "adapter", "probe"}
    assert plan.models == ("tiny",)
    assert all(task == "Digits" or task.startswith(("Shapes-", "Glyphs-")) for task in plan.eval_tasks)


def test_reading_a_plan_does_not_import_torch() -> None:
    code = "import sys; from pathlib import Path; from study.plan_file import read_plan; "
    code += "read_plan(Path('plans/iimm_peft.toml')); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


MISTAKES = {  # what is wrong -> (text in TINY, what stands there instead, what is said)
    "unknown model": ('["tiny"]', '["tinny"]', "line 3: unknown model 'tinny'; did you mean 'tiny'?"),
    "tuning as model": ('["tiny"]', '["tiny", "lora"]', "line 3: 'lora' is a tuning, not a model; give it a table, [tunings.lora]."),
    "unknown weights": ('["tiny"]', '["ViT-B-32/opnai"]', "line 3: open_clip has no weights 'opnai' for 'ViT-B-32'; did you"),
    "unknown task": ('"Shapes-Color"]', '"DTDD"]', "line 5: unknown task 'DTDD'; did you mean 'DTD'?"),
    "unknown split": ('"Digits"', '"DTD@papr"', "line 4: unknown split convention 'papr'; did you mean 'paper'?"),
    "split of others": ('"Digits"', '"Digits@paper"', "line 4: Digits has no 'paper' splits; known: standard."),
    "unknown corruption": ('"Shapes-Kind"', '"Digits+blur-3"', "line 6: unknown corruption 'blur'; did you mean 'motion_blur'?"),
    "unknown measure": ('"image_image"]', '"image_imag"]', "line 8: unknown measure 'image_imag'; did you mean 'image_image'?"),
    "unknown tuning": ("[tunings.full]", "[tunings.ful]", "line 17: unknown tuning 'ful'; did you mean 'full'? (a table with "),
    "unknown tuning by key": ('"lora"', '"lore"', "line 20: unknown tuning 'lore'; did you mean 'lora'?"),
    "unknown key": ("seeds =", "seed =", "line 7: unknown key 'seed'; did you mean 'seeds'?"),
    "unknown key of training": ("epochs =", "epoch =", "line 12: unknown key 'epoch'; did you mean 'epochs'?"),
    "unknown key of tuning": ("rank =", "ranks =", "line 22: unknown key 'ranks'; did you mean 'rank'?"),
    "unknown table": ("[training]", "[trainings]", "line 11: unknown key 'trainings'; did you mean 'training'?"),
    "training at the top": ("val_p = 0.2", "lr = 0.2", "line 9: 'lr' means nothing in the top of a plan; it belongs in [training] or "),
    "top key in a table": ("wd = 0", 'published = "iimm"', "line 15: 'published' means nothing in [training]; it belongs above "),
    "option in training": ("wd = 0", "rank = 3", "line 15: 'rank' means nothing in [training]; it belongs in the table of "),
    "option of others": (
        *("rank = [2, 4]", "train_blocks = 3"),
        "line 22: 'train_blocks' means nothing in [tunings.small_lora]; it belongs in the table of the tuning bias or attention.",
    ),
    "text for a list": ('["tiny"]', '"tiny"', "line 3: 'models' must be a list of at least one value, not 'tiny'."),
    "number for a name": ('"Digits"', "3", "line 4: 'tasks' must be a name in quotes, not 3."),
    "number for a text": ('"A small one"', "1", "line 1: 'title' must be a text in quotes, not 1."),
    "text for a number": ("epochs = 2", 'epochs = "2"', "line 12: 'epochs' must be a whole number of at least 1, not '2'."),
    "fraction": ("epochs = 2", "epochs = 2.0", "line 12: 'epochs' must be a whole number of at least 1, not 2.0."),
    "truth for a number": ("epochs = 2", "epochs = true", "line 12: 'epochs' must be a whole number of at least 1, not true."),
    "number for a truth": ("[false, true]", "1", "line 23: 'lora_mlp' must be true or false, not 1."),
    "no rank": ("[2, 4]", "[2, 0]", "line 22: 'rank' must be a whole number of at least 1, not 0."),
    "no number": ("wd = 0", "wd = nan", "line 15: 'wd' must be a number of at least 0, not nan."),
    "endless": ("lr = 1\n", "lr = inf\n", "line 21: 'lr' must be a number above 0, not inf."),
    "beyond any number": ("wd = 0", f"wd = {10**400}", "line 15: 'wd' must be a number of at least 0, not 1000"),
    "no printable name": ('"Digits"', '"Digits\\u0000"', "line 4: 'tasks' must be a name in quotes, not 'Digits"),
    "negative": ("wd = 0", "wd = [0, -0.1]", "line 15: 'wd' must be a number of at least 0, not -0.1."),
    "negative seed": ("[0, 7]", "[0,\n  -7]", "line 8: 'seeds' must be a whole number of at least 0, not -7."),
    "all for validation": ("0.2", "1", "line 9: 'val_p' must be a number between 0 and 1, both left out, not 1."),
    "unknown optimizer": ('"AdamW"', '"Adamw"', "line 13: unknown optimizer 'Adamw'; did you mean 'AdamW'?"),
    "unknown schedule": ("wd = 0", 'schedule = "cosin"', "line 15: unknown schedule 'cosin'; did you mean 'cosine'?"),
    "optimizer of no name": ('"AdamW"', "1", "line 13: 'optimizer' must be one of SGD, Adam, AdamW, not 1."),
    "list in a list": ("[2, 4]", "[2, [4]]", "line 22: 'rank' must be a whole number of at least 1, not a list."),
    "empty list": ("[0, 7]", "[]", "line 7: 'seeds' must be a list of at least one value, not an empty list."),
    "empty grid": ("[2, 4]", "[]", "line 22: 'rank' must be a list of at least one value, not an empty list."),
    "twice": ("[0, 7]", "[7, 7]", "line 7: 'seeds' has 7 twice."),
    "twice in a grid": ("[1e-3, 1e-4]", "[1e-3,\n0.001]", "line 15: 'lr' has 0.001 twice."),
    "twice under two names": ('"image_image"]', '"iimm"]', "line 8: 'measures' has 'iimm' twice."),
    "twice in two spellings": ('["IIMM", "image', '["iimm", "IIMM", "image', "line 8: 'measures' has 'IIMM' twice, also as 'iimm'."),
    "key twice": ("val_p = 0.2", 'title = "y"', "line 9: not valid TOML: Cannot overwrite a value"),
    "no TOML": ("[0, 7]", "[0, 7", "line 8: not valid TOML: Unclosed array at column 1, in what begins in line 7."),
    "table twice": ("[tunings.small_lora]", "[tunings.full]", "line 19: not valid TOML: Cannot declare "),
    "tuning that is no table": ("[tunings.full]", "[tunings]\nfull = 3", "line 18: 'full' must be a table, [tunings.full]."),
    "tables in an array": ("[training]", "[[training]]", "line 11: 'training' must be a table, [training]."),
    "name for no file": ("[tunings.small_lora]", '[tunings."a/b"]', "line 20: the name 'a/b' of a tuning becomes part of file names"),
    "predictor not measured": ("val_p = 0.2", 'predictor = "gap"', "line 9: 'gap' is not among the measures of this plan; add it"),
    "component not measured": ("val_p = 0.2", 'components = ["image_image",\n"gap"]', "line 10: 'gap' is not among the measures of "),
    "tuned model of others": ("val_p = 0.2", 'tuned_models = ["clip"]', "line 9: 'clip' is not among the models of this plan; "),
    "unknown prompts": ("val_p = 0.2", 'prompts = "opnai"', "line 9: unknown prompts 'opnai' for Digits; a text file "),
    "prompts of others": ("val_p = 0.2", 'prompts = "openai"', "line 9: Digits has no 'openai' prompts; a text file "),
    "unknown published": ("val_p = 0.2", 'published = "imm"', "line 9: unknown published study 'imm'; did you mean 'iimm'?"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, what: str) -> None:
    right, wrong, said = MISTAKES[what]
    assert TINY.count(right) == 1
    assert mistake(tmp_path, TINY.replace(right, wrong)).startswith(f"x.toml, {said}")


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    for key, line in {"title": 'title = "A small one"\n', "models": 'models = ["tiny"]\n'}.items():
        assert mistake(tmp_path, TINY.replace(line, "")) == f"x.toml: '{key}' is missing; a plan has title, models, tasks, measures."
    assert mistake(tmp_path, "").startswith("x.toml: 'title' is missing")


def test_a_training_without_tunings_is_told(tmp_path: Path) -> None:
    told = mistake(tmp_path, TINY[: TINY.index("[tunings.full]")])
    assert told.startswith("x.toml, line 11: [training] is for tunings, of which there are none")


def test_tuned_models_without_such_tunings_are_told(tmp_path: Path) -> None:
    text = TINY[: TINY.index("[tunings.small_lora]")].replace("val_p = 0.2", 'tuned_models = ["tiny"]')
    assert mistake(tmp_path, text) == "x.toml, line 9: 'tuned_models' is for tunings other than 'full', of which there are none."


def test_prompts_may_be_a_file(tmp_path: Path) -> None:
    prompts = tmp_path / "mine.txt"
    prompts.write_text("a drawing of a {c}\n")
    assert read(tmp_path, TINY.replace("val_p = 0.2", f'prompts = "{prompts}"')).prompts == str(prompts)
    prompts.write_text("a drawing\n")
    assert "line 9: the template 'a drawing' has no place" in mistake(tmp_path, TINY.replace("val_p = 0.2", f'prompts = "{prompts}"'))


def test_a_plan_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    read(tmp_path, TINY)
    with pytest.raises(UserError, match=r"There is no plan '.*/xx\.toml'; did you mean '.*/x\.toml'\?"):
        read_plan(tmp_path / "xx.toml")
    with pytest.raises(UserError, match="Cannot read"):
        read_plan(tmp_path / "quite_another.toml")
