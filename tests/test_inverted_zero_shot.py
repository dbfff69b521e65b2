"""Zero-shot classification with inverted features: by brute force, through test.py, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_csv
from datasets.registry import load_task
from datasets.retrieval.collection import Collection
from datasets.task import Groups
from engine.embed import LoadOptions, embed_classes, embed_images
from engine.evaluate import evaluate
from engine.runtime import start
from inversion import zero_shot
from inversion.items import class_prompts
from inversion.sides import Side
from inversion.zero_shot import evaluate_inverted
from models.selection import select_encoder
from tests.helpers import run_here, write_model
from tests.inversion.fake_tokens import write_inversion

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
LOAD = LoadOptions(batch_size=4, num_workers=0)
QUICK = ["--num-workers", 0, "--device", "cpu", "--bs", 5]
IMAGE, TEXT = Side("image"), Side("text")


@pytest.fixture
def selection(small_model):
    return select_encoder(str(small_model), None, {})


@pytest.fixture
def task(image_folder):
    return load_task(f"imagefolder:{image_folder}", "test")


def learn(task, selection, outfolder):
    """(OTI features of the images [N, 2, D], OVI features of the classes [C, 2, D]), on disk too."""
    images = Collection.of_task(task)
    classes = class_prompts(task.classnames, "a photo of {}")
    place = {"dataset": task.name, "split": task.split}
    oti = write_inversion(outfolder, "oti", "exp", images, selection, **place, side="query")
    ovi = write_inversion(outfolder, "ovi", "exp", classes, selection, **place, side="classes")
    return oti, ovi


def sides(kinds, outfolder, step=None):
    return (Side(kind, "exp", step, outfolder) for kind in kinds)


@pytest.mark.parametrize("step", [None, 2])
@pytest.mark.parametrize("kinds", [("oti", "text"), ("image", "ovi"), ("oti", "ovi")])
def test_the_nearest_class(kinds, step, task, selection, tmp_path):
    oti, ovi = learn(task, selection, tmp_path)
    recorded = 0 if step == 2 else 1
    runtime = start("cpu")
    images = oti[:, recorded] if kinds[0] == "oti" else embed_images(runtime, selection.encoder, task, LOAD).embeddings
    classes = ovi[:, recorded] if kinds[1] == "ovi" else embed_classes(runtime, selection.encoder, task)
    predicted = [max(range(3), key=lambda c: float(image @ classes[c])) for image in images]
    found = evaluate_inverted(runtime, selection, task, LOAD, *sides(kinds, tmp_path, step))
    assert found.top1 == np.mean(predicted == task.labels)
    assert found.n_images == len(task)


def test_native_features_give_what_test_gives(task, selection, monkeypatch):
    monkeypatch.setattr(zero_shot, "ROWS", 5)
    groups = Groups("side", ("left", "right", "none"), (task.labels > 0).astype(np.int64))
    grouped = replace(task, groups=groups)
    expected = evaluate(start("cpu"), selection.encoder, grouped, LOAD)
    found = evaluate_inverted(start("cpu"), selection, grouped, LOAD, IMAGE, TEXT)
    assert replace(found, seconds=0, skipped=None) == replace(expected, seconds=0, skipped=None)
    assert found.group_images == {"left": 4, "right": 8}


def test_two_classes_of_one_name(task, selection, tmp_path):
    names = ("blue", "red", "blue")
    twice = replace(task, classnames=names)
    _, ovi = learn(twice, selection, tmp_path)
    assert len(ovi) == 2
    found = evaluate_inverted(start("cpu"), selection, twice, LOAD, *sides(("oti", "ovi"), tmp_path))
    assert 0 <= found.top1 <= 1


def test_oti_decodes_no_image(task, selection, tmp_path, monkeypatch):
    learn(task, selection, tmp_path)
    monkeypatch.setattr(zero_shot, "embed_images", None)
    monkeypatch.setattr(type(task.samples), "image", None)
    assert evaluate_inverted(start("cpu"), selection, task, LOAD, *sides(("oti", "text"), tmp_path)).n_images == 12


def test_a_probe_knows_no_names(task, selection):
    selection.encoder.probe = torch.nn.Linear(32, 3)
    with pytest.raises(UserError, match="A probe classifies images without the features of classes"):
        evaluate_inverted(start("cpu"), selection, task, LOAD, IMAGE, TEXT)


def test_features_that_are_not_finite(task, selection, tmp_path):
    learn(task, selection, tmp_path)
    selection.encoder.model.text_projection.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"outputs for 12 images of imagefolder:.* are not finite"):
        evaluate_inverted(start("cpu"), selection, task, LOAD, *sides(("oti", "text"), tmp_path))


@pytest.fixture
def run_test(task, small_model, tmp_path):
    def run(*flags, model=small_model):
        places = ["--outfile", tmp_path / "out.csv", "--pseudo-tokens", tmp_path / "tokens"]
        return run_here("test", "--model-name", model, "--eval-datasets", task.name, *places, *QUICK, *flags)

    return run


def test_the_row_says_which_features(run_test, task, selection, tmp_path):
    learn(task, selection, tmp_path / "tokens")
    run_test().succeeded()
    run_test("--image-features", "oti", "--exp-name", "exp", "--step", 2).succeeded()
    run_test("--class-features", "ovi", "--exp-name", "exp").succeeded()
    rows = read_csv(tmp_path / "out.csv")
    columns = ["image_features", "class_features", "exp_name", "step"]
    assert list(rows[0])[-4:] == columns
    assert [[row[column] for column in columns] for row in rows] == [
        ["", "", "", ""],
        ["oti", "text", "exp", "2"],
        ["image", "ovi", "exp", ""],
    ]
    details = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    made = {of.get("image_features"): of.get("inversion") for of in details}
    assert made[None] is None
    assert (made["oti"].keys(), made["image"].keys()) == ({"images"}, {"classes"})
    assert made["oti"]["images"]["learning_rate"] == 0.02


def test_the_whole_way(run_test, task, small_model, tmp_path):
    flags = [
        "--dataset-name",
        task.name,
        "--model-name",
        small_model,
        "--outfolder",
        tmp_path / "tokens",
        "--num-workers",
        0,
        "--device",
        "cpu",
    ]
    run_here("oti", *flags, "--oti-steps", 2).succeeded()
    run_here("ovi", *flags, "--ovi-steps", 2, "--use-class-names").succeeded()
    run_test("--image-features", "oti", "--class-features", "ovi").succeeded()
    (row,) = read_csv(tmp_path / "out.csv")
    assert row["n_images"] == "12"


@pytest.mark.parametrize(("flag", "value", "command"), [("--image-features", "oti", "oti.py"), ("--class-features", "ovi", "ovi.py")])
def test_missing_pseudo_tokens_say_which_command_makes_them(run_test, flag, value, command):
    ended = run_test(flag, value, "--exp-name", "none")
    ended.refused("no pseudo-tokens", f"python {command}", "--exp-name none", "--model-name", "--outfolder")
    assert "top-1" not in ended.stdout  # before the table's heading


def test_pseudo_tokens_of_another_model(run_test, task, selection, tmp_path):
    learn(task, selection, tmp_path / "tokens")
    other = write_model(tmp_path / "other", seed=1)
    run_test("--image-features", "oti", "--exp-name", "exp", model=other).refused("whose weights are not those of")


@pytest.mark.parametrize("flags", [["--exp-name", "exp"], ["--step", 3]])
def test_an_inversion_that_is_not_used(run_test, flags):
    run_test(*flags).refused(f"{flags[0]} is of an inversion; add --image-features oti or --class-features ovi")
