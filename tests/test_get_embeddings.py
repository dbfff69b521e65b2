"""get_embeddings.py as users run it: the file that other commands read, one for each encoder and data set."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from datasets.registry import load_task, task_slug
from engine.embeddings import KEYS, load_embeddings, read_metadata
from models.checkpoint import checkpoint_sha256
from models.selection import model_slug, select_encoder
from tests.helpers import files_below, run_here, run_script

QUICK = ["--num-workers", 0, "--device", "cpu", "--batch-size", 5]


@pytest.fixture
def name(image_folder):
    return f"imagefolder:{image_folder}"


@pytest.fixture
def embed(small_model, name, tmp_path):
    """A function: run the script on the coloured images' test split, into tmp_path/embeddings."""

    def run(*more, model=small_model, datasets=(name,)):
        chosen = [] if model is None else ["--model-name", model]
        return run_here(
            "get_embeddings", *chosen, "--datasets", *datasets, "--split", "test", "--outfolder", tmp_path / "embeddings", *QUICK, *more
        )

    return run


@pytest.fixture
def main_file(small_model, name, tmp_path):
    """Where the file of the coloured images' test split is to be."""
    return tmp_path / "embeddings" / model_slug(str(small_model)) / f"{task_slug(name)}_test.safetensors"


@torch.no_grad()
def expected_rows(encoder, task):
    """(image rows, class rows), each from a pass of its own."""
    images = [encoder.encode_image(encoder.preprocess(task.samples.image(index))[None])[0] for index in range(len(task))]
    classes = []
    for prompts in task.prompts():
        mean = torch.stack([encoder.encode_text(encoder.tokenize([prompt]))[0] for prompt in prompts]).mean(dim=0)
        classes.append(mean / mean.norm())
    return torch.stack(images).numpy(), torch.stack(classes).numpy()


def test_the_file(embed, main_file, small_model, name):
    """Tensors, types and metadata of the contract; rows are the encoder's outputs."""
    ended = embed().succeeded()
    task, selection = load_task(name, "test"), select_encoder(str(small_model), None, {})
    tensors = load_file(main_file)
    images, classes = expected_rows(selection.encoder, task)
    assert {key: (str(value.dtype), value.shape) for key, value in tensors.items()} == {
        "image_embeddings": ("float32", (12, 32)),
        "text_embeddings": ("float32", (3, 32)),
        "labels": ("int64", (12,)),
    }
    np.testing.assert_allclose(tensors["image_embeddings"], images, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tensors["text_embeddings"], classes, rtol=0, atol=1e-6)
    assert tensors["labels"].tolist() == task.labels.tolist()
    metadata = read_metadata(main_file)
    assert set(KEYS) <= metadata.keys()
    expected = {
        **{"format": "clipscope-embeddings/1", "model": str(small_model), "tuning": "none", "checkpoint_sha256": selection.sha256},
        **{"dataset": name, "split": "test", "fingerprint": task.fingerprint, "precision": "fp32"},
    }
    assert {key: metadata[key] for key in expected} == expected
    assert json.loads(metadata["classnames"]) == ["blue", "green", "red"]
    assert json.loads(metadata["templates"]) == list(task.templates)
    assert main_file.with_suffix(".ids.txt").read_text().splitlines() == task.sample_ids
    assert f"{main_file}: 12 images, 3 classes" in ended.stdout
    assert len(list(main_file.parent.iterdir())) == 2


def test_a_file_that_is_there_is_kept(embed, main_file):
    embed().succeeded()
    before = files_below(main_file.parent)
    ended = embed().succeeded()
    assert ended.stdout == f"kept {main_file} (--overwrite makes it anew)\n"
    assert files_below(main_file.parent) == before
    assert ": 12 images, " in embed("--overwrite").succeeded().stdout
    assert files_below(main_file.parent) != before  # the time at least


def test_a_kept_file_of_other_prompts_or_images_is_told(embed, main_file, small_model, image_folder, tmp_path, name):
    """Silently kept, it would stand for what was asked for."""
    shutil.copytree(image_folder, tmp_path / "data")
    name = f"imagefolder:{tmp_path / 'data'}"
    embed(datasets=[name]).succeeded()
    assert "made from OTHER prompts (" in embed("--template", "other {c}", datasets=[name]).succeeded().stdout
    shutil.copy(tmp_path / "data/test/red/00.jpg", tmp_path / "data/test/blue/00.jpg")
    assert "made from OTHER images (" in embed(datasets=[name]).succeeded().stdout


def test_a_kept_file_that_was_decoded_otherwise_says_so(embed):
    embed().succeeded()
    assert "made from OTHER decoding (" in embed("--full-decode").succeeded().stdout


def test_several_templates_are_averaged_and_normalised(embed, main_file, small_model, name, tmp_path):
    (tmp_path / "more.txt").write_text("the colour {}\nall in {c}, large\n")
    embed("--template", "a photo of a {c}", "--template", tmp_path / "more.txt").succeeded()
    templates = ["a photo of a {c}", "the colour {c}", "all in {c}, large"]
    found = load_embeddings(main_file)
    assert found.templates == templates
    task = load_task(name, "test", templates=templates)
    _, classes = expected_rows(select_encoder(str(small_model), None, {}).encoder, task)
    np.testing.assert_allclose(found.text_embeddings, classes, rtol=0, atol=1e-6)


def test_csv_is_the_pair_of_the_released_code_with_the_same_numbers(embed, main_file):
    embed().succeeded()
    embed("--format", "csv").succeeded()
    stem = main_file.with_suffix("")
    pair = [stem.with_name(f"{stem.name}_{part}_embeddings.csv") for part in ("image", "text")]
    assert all(path.exists() for path in pair)
    one, other = load_embeddings(main_file), load_embeddings(pair[0])
    np.testing.assert_array_equal(one.image_embeddings, other.image_embeddings)
    np.testing.assert_array_equal(one.text_embeddings, other.text_embeddings)
    assert one.labels.tolist() == other.labels.tolist()
    assert one.sample_ids == other.sample_ids
    assert f"kept {pair[0]}" in embed("--format", "csv").succeeded().stdout


@pytest.mark.parametrize("tuning", ["full", "adapter", "probe"])
def test_a_tuned_encoder_has_a_folder_of_its_own(embed, main_file, small_model, name, tmp_path, tuning):
    """A probe's image and text embeddings are those of the encoder under it."""
    flags = ["--base-model", small_model, "--model-dir", tmp_path / "ckpts", "--lr", 0.05, "--nepochs", 1, "--val-p", 0.2]
    run_here("train", "--dataset", name, "--model-name", tuning, *flags, "--num-workers", 0, "--bs", 4, "--device", "cpu").succeeded()
    (path,) = (tmp_path / "ckpts").glob("*_best.safetensors")
    embed().succeeded()
    embed("--model-path", path, model=None).succeeded()
    own = main_file.parent.parent / path.stem / main_file.name
    found, plain = load_embeddings(own), load_embeddings(main_file)
    images, classes = expected_rows(select_encoder(None, path, {}).encoder, load_task(name, "test"))
    np.testing.assert_allclose(found.image_embeddings, images, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.text_embeddings, classes, rtol=0, atol=1e-6)
    assert (np.abs(found.image_embeddings - plain.image_embeddings).max() > 1e-3) == (tuning != "probe")
    assert (found.metadata["tuning"], found.metadata["checkpoint_sha256"]) == (tuning, checkpoint_sha256(path))
    assert found.metadata["fingerprint"] == plain.metadata["fingerprint"]


def test_every_split_and_data_set_has_its_file(embed, main_file, name):
    """A data set named twice is embedded once."""
    embed("--split", "train", "--val-p", 0.5, datasets=[name, "Digits", name]).succeeded()
    embed("--split", "val", "--val-p", 0.5).succeeded()
    slug = task_slug(name)
    assert sorted(path.name for path in main_file.parent.glob("*.safetensors")) == sorted(
        f"{stem}.safetensors" for stem in (f"{slug}_train", f"{slug}_val", "Digits_train")
    )
    train, val = (load_embeddings(main_file.with_name(f"{slug}_{split}.safetensors")) for split in ("train", "val"))
    assert (len(train.labels), len(val.labels)) == (12, 12)
    assert len({*train.sample_ids, *val.sample_ids}) == 24


def test_skipped_images_are_listed_beside_the_file_and_left_out(embed, small_model, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "bad")
    (tmp_path / "bad/test/red/02.jpg").write_bytes(b"no image")
    name = f"imagefolder:{tmp_path / 'bad'}"
    embed("--max-skipped", 1, datasets=[name]).succeeded()
    (path,) = (tmp_path / "embeddings").rglob("*.safetensors")
    found = load_embeddings(path)
    assert len(found.labels) == len(found.sample_ids) == 11
    assert "test/red/02.jpg" not in found.sample_ids
    assert found.metadata["n_skipped"] == "1"
    assert path.with_name(f"{path.name}.skipped.txt").read_text() == "test/red/02.jpg\tnot an image of a known format\n"


def test_two_processes_write_the_rows_of_one_in_the_same_order(embed, main_file, small_model, name, tmp_path):
    """12 images in batches of 5 for two processes, on any machine: no --device. A second data set is kept by both."""
    flags = ["--model-name", small_model, "--datasets", name, name, "--split", "test", "--num-workers", 1, "--batch-size", 5]
    ended = run_script("get_embeddings", *flags, "--outfolder", tmp_path / "two", processes=2).succeeded()
    embed().succeeded()
    (path,) = (tmp_path / "two").rglob("*.safetensors")
    found, expected = load_embeddings(path), load_embeddings(main_file)
    np.testing.assert_allclose(found.image_embeddings, expected.image_embeddings, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.text_embeddings, expected.text_embeddings, rtol=0, atol=1e-6)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.sample_ids == expected.sample_ids
    assert found.metadata["processes"] == "2"
    assert ended.stdout.count(": 12 images, ") == 1


def test_bf16_is_stored_as_float32_near_fp32(embed, main_file):
    embed().succeeded()
    exact = load_embeddings(main_file)
    embed("--precision", "bf16", "--overwrite").succeeded()
    found = load_embeddings(main_file)
    assert found.metadata["precision"] == "bf16"
    assert found.image_embeddings.dtype == np.float32
    assert 1e-6 < np.abs(found.image_embeddings - exact.image_embeddings).max() < 0.02


def test_what_get_metric_scores_reads(embed, main_file, tmp_path):
    """The two commands fit together without renaming anything."""
    embed().succeeded()
    ended = run_here("get_metric_scores", "--embeddings", main_file, "--outpath", tmp_path / "scores.csv").succeeded()
    assert "iimm" in ended.stdout
    assert "Rows added" in ended.stdout
