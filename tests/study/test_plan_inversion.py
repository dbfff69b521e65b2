"""The table [inversion] of a plan: what is read, what has defaults, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from datasets.prompts import chosen_templates
from study.plan import Plan
from study.plan_file import read_plan
from study.plan_inversion import OTI, OVI, InversionPlan, InversionSetting
from study.published_inversion import BACKBONES, IMAGE_SETS, TEXT_SETS, ZERO_SHOT_SETS, backbone
from tests.helpers import ROOT

SMALL = """title = "Inversion"
models = ["tiny", "clip"]

[inversion]
image_tasks = ["Digits",
               "CUB", "CUB@standard"]
text_tasks = ["Shapes-Captions"]
zero_shot_tasks = ["Digits", "CUB"]
misalignment = ["Digits"]
project = ["pca", "iso"]
fuse = [0.25, 0.5]
seeds = [42, 7]

[inversion.oti]
num_pseudo_tokens = [1, 4]
steps = 20
snapshots = [10, 5, 20]

[inversion.ovi]
lr = 1

[inversion.models.tiny]
ovi_pseudo_tokens = 4
iso_image = [8, 16]
"""


def read(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return read_plan(path)


def inversion(tmp_path: Path, text: str = SMALL) -> InversionPlan:
    found = read(tmp_path, text).inversion
    assert found is not None
    return found


def mistake(tmp_path: Path, text: str) -> str:
    """What is said of the plan, without its folder."""
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_inversion_is_read_as_it_is_written(tmp_path: Path) -> None:
    of = inversion(tmp_path)
    assert (of.text_tasks, of.misalignment) == (("Shapes-Captions",), ("Digits",))
    assert (of.project, of.fuse, of.seeds) == (("pca", "iso"), (0.25, 0.5), (42, 7))
    assert of.oti == InversionSetting(OTI, steps=20, snapshots=(5, 10))  # after the last step they are kept anyway
    assert of.ovi == InversionSetting(OVI, steps=1000, lr=1.0)


def test_a_retrieval_set_and_a_classification_set_of_one_name_are_told_apart(tmp_path: Path) -> None:
    of = inversion(tmp_path)
    assert of.image_tasks == ("Digits", "CUB", "CUB@standard")
    assert of.zero_shot_tasks == ("Digits", "CUB@standard")


def test_every_number_of_pseudo_tokens_goes_with_every_seed(tmp_path: Path) -> None:
    settings = inversion(tmp_path).settings(OTI, "clip")
    assert [(each.num_pseudo_tokens, each.seed) for each in settings] == [(1, 42), (1, 7), (4, 42), (4, 7)]
    assert {each.steps for each in settings} == {20}


def test_models_differ_where_their_tables_say_so(tmp_path: Path) -> None:
    of = inversion(tmp_path)
    assert [each.num_pseudo_tokens for each in of.settings(OVI, "tiny")] == [4, 4]
    assert [each.num_pseudo_tokens for each in of.settings(OVI, "clip")] == [1, 1]
    assert (of.iso("image", "tiny"), of.iso("text", "tiny")) == ((8, 16), None)
    assert (of.iso("image", "clip"), of.iso("text", "clip")) == ((150, 50), (20, 100))  # as published


def test_pseudo_patches_that_are_left_out_are_the_published_ones(tmp_path: Path) -> None:
    of = inversion(tmp_path, SMALL.replace('"tiny", "clip"', '"tiny", "ViT-L-14-quickgelu/openai", "siglip", "SLIP-ViT-L-16/./large.pt"'))
    assert [of.settings(OVI, model)[0].num_pseudo_tokens for model in of.models] == [4, 4, 4, 2]
    said = SMALL.replace("lr = 1", "lr = 1\nnum_pseudo_tokens = 3").replace('"clip"', '"siglip"')
    assert inversion(tmp_path, said).settings(OVI, "siglip")[0].num_pseudo_tokens == 3


def test_what_is_left_out_is_the_published_protocol(tmp_path: Path) -> None:
    plan = read(tmp_path, 'title = "x"\nmodels = ["tiny"]\n[inversion]\nimage_tasks = ["Digits"]\n')
    assert (plan.tasks, plan.measures, plan.tunings) == ((), (), ())
    assert plan.inversion is not None
    assert plan.inversion.settings(OTI, "tiny") == [InversionSetting(OTI, 1, 150, 0.02, 0.01, "a photo of {}", (), 42)]
    assert plan.inversion.settings(OVI, "tiny") == [InversionSetting(OVI, 1, 1000, 0.02, 0.01, "a photo of {}", (), 42)]
    assert (plan.inversion.project, plan.inversion.fuse, plan.inversion.iso("image", "tiny")) == ((), (), None)


def test_a_plan_without_the_table_has_no_inversion(tmp_path: Path) -> None:
    assert read(tmp_path, 'title = "x"\nmodels = ["tiny"]\ntasks = ["Digits"]\nmeasures = ["gap"]\n').inversion is None


def test_a_plan_may_train_and_invert(tmp_path: Path) -> None:
    both = read(tmp_path, SMALL.replace("[inversion]", 'tasks = ["Digits"]\nmeasures = ["gap"]\n[inversion]'))
    assert both.tasks == ("Digits",) and both.inversion is not None


MISTAKES = {  # what is replaced in SMALL, by what, and what is then said
    "unknown key": ("fuse = [0.25, 0.5]", "fuses = [0.5]", "line 11: unknown key 'fuses'; did you mean 'fuse'?"),
    "key at the top": (
        'models = ["tiny", "clip"]',
        'models = ["tiny", "clip"]\nfuse = [0.5]',
        "line 3: 'fuse' means nothing in the",
    ),
    "setting in the table": (
        "seeds = [42, 7]",
        "steps = 5",
        "line 12: 'steps' means nothing in [inversion]; it belongs in",
    ),
    "training's key": ("lr = 1\n", "wd = 1\n", "line 20: 'wd' means nothing in [inversion.ovi]"),
    "unknown image set": ('"Digits",\n', '"Digit",\n', "line 5: unknown task 'Digit'; did you mean 'Digits'?"),
    "texts among images": ('"CUB", "CUB', '"COCO", "CUB', "line 6: 'COCO' is a set of texts; list it in text_tasks."),
    "images among texts": ('["Shapes-Captions"]', '["SOP"]', "line 7: unknown set of texts 'SOP'"),
    "same set twice": ('["Digits", "CUB"]', '["Digits", "Digits@standard"]', "line 8: 'zero_shot_tasks' has 'Digits@standard' twice"),
    "histograms of what is not inverted": (
        'misalignment = ["Digits"]',
        'misalignment = ["SOP"]',
        "line 9: 'SOP' is not among the",
    ),
    "unknown projection": ('["pca", "iso"]', '["pca", "isoclip"]', "line 10: unknown project 'isoclip'; did you mean 'iso'?"),
    "share beyond 1": ("[0.25, 0.5]", "[0.25, 1.5]", "line 11: 'fuse' must be a number between 0 and 1, both left out, not 1.5."),
    "no seeds": ("[42, 7]", "[]", "line 12: 'seeds' must be a list of at least one value, not an empty list."),
    "no pseudo-tokens": ("[1, 4]", "[1, 0]", "line 15: 'num_pseudo_tokens' must be a whole number of at least 1, not 0."),
    "step beyond the last": ("[10, 5, 20]", "[10,\n 21]", "line 18: A snapshot after step 21 is beyond the last of 20 steps"),
    "template without a place": ("lr = 1\n", 'template = "a photo"\n', "line 20: 'template' must be a text with {} once, not 'a photo'."),
    "unknown model": ("[inversion.models.tiny]", "[inversion.models.siglip]", "line 22: 'siglip' is not among the models of this plan"),
    "model's unknown key": ("iso_image = [8, 16]", "iso_images = [8, 16]", "line 24: unknown key 'iso_images'; did you mean 'iso_image'"),
    "three numbers": (
        "iso_image = [8, 16]",
        "iso_image = [8, 16, 2]",
        "line 24: 'iso_image' must be a list of two",
    ),
    "less than none": ("iso_image = [8, 16]", "iso_image = [8, -1]", "line 24: 'iso_image' must be a whole number of at least 0, not -1."),
    "iso's numbers without iso": (
        '["pca", "iso"]',
        '["pca"]',
        "line 24: 'iso_image' means nothing while 'iso' is not in",
    ),
    "measures without tasks": ("\n[inversion]", 'measures = ["gap"]\n[inversion]', "'tasks' is missing"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    old, new, said = MISTAKES[name]
    assert SMALL.count(old) == 1, old
    told = mistake(tmp_path, SMALL.replace(old, new))
    assert said in told


def test_iso_needs_a_model_of_which_something_is_known(tmp_path: Path) -> None:
    text = SMALL.replace('["tiny", "clip"]', '["tiny"]').replace("iso_image = [8, 16]\n", "")
    assert "line 10: IsoCLIP has no published numbers for these models" in mistake(tmp_path, text)


def test_nothing_to_do_is_a_mistake(tmp_path: Path) -> None:
    assert "line 3: [inversion] has nothing to do" in mistake(tmp_path, 'title = "x"\nmodels = ["tiny"]\n[inversion]\n')


def test_inversion_that_is_no_table(tmp_path: Path) -> None:
    assert "line 3: 'inversion' must be a table" in mistake(tmp_path, 'title = "x"\nmodels = ["tiny"]\ninversion = 3\n')
    assert "'oti' must be a table" in mistake(tmp_path, f"{SMALL.split('[inversion.oti]', maxsplit=1)[0]}oti = 3\n")


def test_published_numbers_of_inversion_need_inversion(tmp_path: Path) -> None:
    text = 'title = "x"\nmodels = ["tiny"]\ntasks = ["Digits"]\nmeasures = ["gap"]\npublished = "cross_the_gap"\n'
    assert "line 5: the numbers 'cross_the_gap' are of inversion" in mistake(tmp_path, text).replace("The", "the")


def test_prompts_are_checked_of_what_is_classified(tmp_path: Path) -> None:
    assert "line 3: Digits has no 'coop' prompts" in mistake(tmp_path, SMALL.replace('"clip"]\n', '"clip"]\nprompts = "coop"\n', 1))


def test_slips_weights_need_not_be_there_when_a_plan_is_made(tmp_path: Path) -> None:
    plan = read(tmp_path, SMALL.replace('"tiny", "clip"', '"tiny", "SLIP-ViT-B-16/./nowhere.pt"'))
    assert plan.models == ("tiny", "SLIP-ViT-B-16/nowhere.pt")


def test_the_papers_plan_is_that_of_its_tables() -> None:
    plan = read_plan(ROOT / "plans" / "cross_the_gap.toml")
    assert plan.inversion is not None
    assert tuple(map(backbone, plan.models)) == BACKBONES
    assert (plan.inversion.image_tasks, plan.inversion.text_tasks) == (IMAGE_SETS, TEXT_SETS)
    assert plan.inversion.zero_shot_tasks == ZERO_SHOT_SETS
    settings = {kind: [plan.inversion.settings(kind, model) for model in plan.models] for kind in (OTI, OVI)}
    assert all(found == [InversionSetting(OTI)] for found in settings[OTI])
    assert [found[0].num_pseudo_tokens for found in settings[OVI]] == [1, 4, 1, 2, 4, 1, 2]
    assert {found[0].steps for found in settings[OVI]} == {1000}
    assert plan.prompts == "cross_the_gap"
    prompts = {task: chosen_templates(task.partition("@")[0], plan.prompts) for task in plan.inversion.zero_shot_tasks}
    assert prompts["ImageNet@coop"] == prompts["Cars@coop"] == ("a photo of a {c}.",)
    assert prompts["DTD@coop"] == ("{c} texture.",)
