"""oti.py as users run it: folders of shards that retrieval.py reads."""

import itertools
import json
import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import inversion.run
from common.files import read_csv
from datasets.registry import load_task, task_slug
from inversion.pseudo_text import PseudoText
from inversion.pseudo_tokens import load_pseudo_tokens
from models.selection import model_slug, select_encoder
from tests.helpers import files_below, run_here, run_script

QUICK = ["--num-workers", 0, "--device", "cpu", "--image-batch-size", 5]
STEPS = 8


@pytest.fixture
def name(image_folder):
    return f"imagefolder:{image_folder}"


@pytest.fixture
def places(tmp_path):
    return ["--outfolder", tmp_path / "pseudo", "--features", tmp_path / "features", "--outfile", tmp_path / "retrieval.csv"]


@pytest.fixture
def invert(small_model, name, places):
    """A function: run the script on the coloured images' test split."""

    def run(*more, model=("--model-name", small_model), steps=STEPS):
        return run_here("oti", *model, "--dataset-name", name, "--oti-steps", steps, *places, *QUICK, *more)

    return run


@pytest.fixture
def folder(tmp_path, small_model, name):
    """Where the inversion of the coloured images' test split is to be."""
    return tmp_path / "pseudo/oti" / model_slug(str(small_model)) / f"{task_slug(name)}_test_query"


def targets_of(small_model, name):
    """The encoder and its embeddings of the test images."""
    encoder, task = select_encoder(str(small_model), None, {}).encoder, load_task(name, "test")
    with torch.no_grad():
        pixels = torch.stack([encoder.preprocess(task.samples.image(index)) for index in range(len(task))])
        return encoder, encoder.encode_image(pixels)


def test_the_files(invert, folder, small_model, name):
    """Features are those of the learnt pseudo-tokens in the sentence, losses their cosines to the images."""
    ended = invert("--snapshots", "2,5", "--num-pseudo-tokens", 2, "--template-sentence", "{} in colour", "--batch-size", 5).succeeded()
    found = load_pseudo_tokens(folder)
    assert found.names == load_task(name, "test").sample_ids
    assert found.steps == (2, 5, STEPS)
    assert found.pseudo_tokens.shape == (12, 3, 2, 32)
    encoder, targets = targets_of(small_model, name)
    with torch.no_grad():
        features = PseudoText(encoder, "{} in colour", 2).features(found.pseudo_tokens.flatten(0, 1)).unflatten(0, (12, 3))
    np.testing.assert_allclose(found.features, features.numpy(), rtol=0, atol=1e-6)
    losses = 1 - F.cosine_similarity(features, targets[:, None], dim=-1)
    np.testing.assert_allclose(found.losses, losses.numpy(), rtol=0, atol=1e-5)
    assert found.losses[:, -1].mean() < found.curve[-1] < found.curve[0]
    settings = {
        **{"kind": "oti", "model": str(small_model), "dataset": name, "split": "test", "side": "query", "n_items": 12, "n_empty": 0},
        **{"template": "{} in colour", "num_pseudo_tokens": 2, "steps": STEPS, "learning_rate": 0.02, "weight_decay": 0.01, "seed": 42},
        **{"snapshots": [2, 5], "early_stop": None, "precision": "fp32", "fingerprint": load_task(name, "test").fingerprint},
    }
    assert settings.items() <= found.hyperparameters.items()
    assert sorted(path.name for path in folder.iterdir()) == [
        "hyperparameters.json",
        *(f"items-{number:07d}.safetensors" for number in (0, 5, 10)),
        "run-0000000.json",
    ]
    assert ended.stdout.splitlines()[-1].startswith(f"{folder}: 12 items, ")


def test_a_finished_inversion_is_kept_and_another_one_refused(invert, folder):
    invert().succeeded()
    before = files_below(folder)
    assert f"kept {folder}: 12 items" in invert("--resume-experiment", "True", "--batch-size", 5).succeeded().stdout
    invert("--learning-rate", 0.1).refused("was made with learning_rate 0.02, not 0.1", "--exp-name", "--overwrite")
    invert("--stop-at-cosine", 0.9).refused("early_stop")
    assert files_below(folder) == before
    invert("--learning-rate", 0.1, "--overwrite").succeeded()
    assert load_pseudo_tokens(folder).hyperparameters["learning_rate"] == 0.1


def test_a_configuration_gives_flags_and_the_name(invert, tmp_path, name, small_model):
    """Underscores and dashes, as in the released code; what is typed comes before what the file says."""
    path = tmp_path / "mine.toml"
    path.write_text(f'model_name = "{small_model}"\noti_steps = 99\nlearning-rate = 0.5\nuse_open_clip = false\n')
    invert("--config", path, "--learning_rate", 0.25, "--weight_decay=0", model=()).succeeded()
    found = load_pseudo_tokens(tmp_path / "pseudo/oti/mine" / f"{task_slug(name)}_test_query")
    wanted = {"steps": STEPS, "learning_rate": 0.25, "weight_decay": 0.0, "exp_name": "mine"}
    assert wanted.items() <= found.hyperparameters.items()


def test_validation_searches_what_was_inverted(invert, folder, tmp_path, small_model, name):
    """The same numbers as retrieval.py gives for it, with another split of the gallery and another template."""
    ended = invert("--validate", "True", "--gallery-split", "test", "--snapshots", 3, "--template-sentence", "one {}").succeeded()
    rows = ended.stdout.split("seconds\n")[1].splitlines()
    labels = ["image -> image", f"oti {folder.parent.name}@3 -> image", f"oti {folder.parent.name}@{STEPS} -> image"]
    assert [row.startswith(label) for row, label in zip(rows, labels, strict=True)] == [True] * 3
    assert len((tmp_path / "retrieval.csv").read_text().splitlines()) == 4
    sides = ["--query", "oti", "--gallery", "image", "--query-exp-name", folder.parent.name, "--gallery-split", "test"]
    files = ["--pseudo-tokens", tmp_path / "pseudo", "--features", tmp_path / "features", "--outfile", tmp_path / "other.csv"]
    again = run_here(
        "retrieval", "--model-name", small_model, "--dataset-name", name, *sides, *files, "--num-workers", 0, "--device", "cpu"
    )
    assert again.succeeded().stdout.splitlines()[-1].split()[-7:-1] == rows[-1].split()[-7:-1]


def test_the_gallery_can_be_inverted(invert, folder, tmp_path):
    invert("--side", "gallery").succeeded()
    found = load_pseudo_tokens(folder.with_name(folder.name.replace("_query", "_gallery")))
    assert len(found.names) == 22  # of 24 training images of own data, a tenth is for validation
    assert all(each.startswith("train/") for each in found.names)
    invert("--split", "test_gallery").succeeded()
    assert not folder.exists()


def test_items_stop_early_when_asked(invert, folder):
    invert("--stop-at-cosine", 0.2, "--check-every", 2, steps=60).succeeded()
    found = load_pseudo_tokens(folder)
    assert (found.losses[:, -1] < 0.8).all()
    assert found.hyperparameters["early_stop"] == {"stop_at_cosine": 0.2, "stop_below": None, "stop_over": 10, "check_every": 2}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--snapshots", "5,9"], ["Snapshot 9", "8 steps"]),
        (["--template-sentence", "a photo"], ["a photo", "{}"]),
        (["--precision", "fp16"], ["fp16"]),
        (["--max-skipped", 1], ["--max-skipped"]),
        (["--split", "none"], ["none"]),
        (["--oti-stepz", 3], ["--oti-stepz", "did you mean '--oti-steps'"]),
        (["--clip_model_name", "ViT-B/32"], ["--clip-model-name"]),
        (["--dataset_name", "cub2011"], ["CUB"]),
        (["--snapshots", "ten"], ["--snapshots"]),
    ],
    ids=lambda value: str(value[0]),
)
def test_mistakes_are_told_in_a_sentence(invert, folder, flags, words):
    invert(*flags).refused(*words)
    assert not folder.exists()


def test_two_processes_learn_and_search_as_one_does(invert, folder, small_model, name, tmp_path):
    flags = ["--model-name", small_model, "--dataset-name", name, "--oti-steps", STEPS, "--num-workers", 0, "--batch-size", 4, "--validate"]
    two = ["--outfolder", tmp_path / "two", "--features", tmp_path / "features two", "--outfile", tmp_path / "two.csv"]
    ended = run_script("oti", *flags, *two, processes=2).succeeded()
    assert ended.stdout.count(": 12 items, ") == ended.stdout.count("image -> image") == 1
    invert("--validate").succeeded()
    assert files_below(tmp_path / "features two").keys() == files_below(tmp_path / "features").keys()
    scores = [[float(row["mAP"]) for row in read_csv(tmp_path / f"{table}.csv")] for table in ("two", "retrieval")]
    np.testing.assert_allclose(*scores, atol=1e-3)
    assert len(scores[0]) == 2  # native, inverted
    found, expected = load_pseudo_tokens(tmp_path / "two/oti" / folder.parent.name / folder.name), load_pseudo_tokens(folder)
    np.testing.assert_allclose(found.features, expected.features, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pseudo_tokens, expected.pseudo_tokens, rtol=0, atol=1e-5)
    assert found.names == expected.names


def test_a_stopped_run_goes_on(invert, folder, monkeypatch):
    """SIGTERM, as a scheduler sends it, while the third batch is on its way."""
    with monkeypatch.context() as patch:
        patch.setattr(inversion.run, "save_shard", terminated_after(2))
        ended = invert("--batch-size", 2)
    assert ended.status == 75
    assert ended.stderr == "oti.py: Stopped by SIGTERM; 4 of 12 items are saved, the same command goes on with the others.\n"
    assert f"{folder}: 4 of 12 items are there, going on\n" in invert().succeeded().stdout
    assert json.loads((folder / "run-0000004.json").read_text())["items"] == 8
    assert len(load_pseudo_tokens(folder).names) == 12


def terminated_after(shards):
    """What writes shards, and gets the signal after so many."""
    save, number = inversion.run.save_shard, itertools.count(1)

    def saving(*args):
        save(*args)
        if next(number) == shards:
            os.kill(os.getpid(), signal.SIGTERM)

    return saving
