"""From --model-name and --model-path to an encoder: what is refused, and what a selection says of itself."""

import shutil

import pytest
import torch

from common.errors import UserError
from models.checkpoint import base_sha256, checkpoint_sha256, make_header, save_checkpoint
from models.loading import load_encoder
from models.selection import Selection, model_slug, select_encoder
from models.tunings import TuningOptions, apply_tuning, trained_parameters


@pytest.fixture
def checkpoint(small_model, tmp_path):
    """A LoRA of rank 3 whose updates are not 0."""
    encoder = load_encoder(str(small_model))
    base, options = base_sha256(encoder), TuningOptions(rank=3)
    apply_tuning(encoder, "lora", options)
    for parameter in trained_parameters(encoder).values():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "run_lr0.01_best.safetensors"
    save_checkpoint(path, encoder, make_header(encoder, "lora", options, base, task="Digits"))
    return path


def test_a_model_as_it_was_published(small_model):
    selection = select_encoder(str(small_model), None, {})
    assert (selection.model, selection.tuning, selection.checkpoint, selection.header) == (str(small_model), "none", "", None)
    assert selection.sha256 == base_sha256(load_encoder(str(small_model)))
    assert selection.label == model_slug(str(small_model))


def test_a_checkpoint_says_everything_itself(checkpoint, small_model):
    selection = select_encoder(None, checkpoint, {})
    assert (selection.model, selection.tuning, selection.checkpoint) == (str(small_model), "lora", str(checkpoint))
    assert selection.sha256 == checkpoint_sha256(checkpoint)
    assert selection.label == "run_lr0.01_best"
    assert selection.header is not None
    assert selection.header.task == "Digits"
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (selection.encoder.encode_image(pixels) - load_encoder(str(small_model)).encode_image(pixels)).abs().max() > 1e-3


def test_flags_that_agree_with_the_checkpoint_are_accepted(checkpoint, small_model):
    for name in ("lora", str(small_model), None):
        assert select_encoder(name, checkpoint, {"rank": 3}).tuning == "lora"


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("adapter", {}, "The tuning 'adapter' contradicts"),
        ("tiny", {}, "The model 'tiny' contradicts"),
        (None, {"rank": 4}, "--rank 4 contradicts"),
        (None, {"reduction": 4}, "--reduction has no meaning for"),
    ],
)
def test_flags_that_contradict_it_are_refused(checkpoint, name, given, told):
    with pytest.raises(UserError, match=told):
        select_encoder(name, checkpoint, given)


@pytest.mark.parametrize("name", ["full", "lora", "bias", "attention", "adapter", "probe"])
def test_a_tuning_without_a_checkpoint_has_no_weights(name):
    """A probe without one would be a random classifier, whose accuracy the released code reported as zero-shot."""
    with pytest.raises(UserError, match=f"'{name}' is a tuning, not a model, and has no weights of its own; give .* --model-path"):
        select_encoder(name, None, {})


def test_a_tunings_flag_without_a_checkpoint_is_refused(small_model):
    with pytest.raises(UserError, match="--train-blocks belongs to a fine-tuned encoder"):
        select_encoder(str(small_model), None, {"train_blocks": 3})


@pytest.mark.parametrize(
    ("name", "slug"), [("clip", "clip"), ("ViT-B-32/openai", "ViT-B-32-openai"), ("hf-hub:org/name", "hf-hub-org-name")]
)
def test_names_in_paths(name, slug):
    assert model_slug(name) == slug


def test_folders_in_paths_are_told_apart_and_recognised_however_written(small_model, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / small_model.name
    shutil.copytree(small_model, other)
    monkeypatch.chdir(tmp_path)
    spellings = {model_slug(name) for name in (str(other), f"local-dir:{other}", f"elsewhere/{small_model.name}/")}
    assert len(spellings) == 1
    assert model_slug(str(small_model)) not in spellings
    assert spellings.pop().startswith(f"{small_model.name}-")


def test_a_folder_that_is_called_like_a_model_is_not_that_model(tmp_path, monkeypatch):
    """models.zoo takes the short name for the model; so must the name of its files."""
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_slug("tiny") == "tiny"


def test_label_of_a_checkpoint_is_its_files_name():
    assert Selection(None, "tiny", "lora", "a/b c_best.safetensors", "").label == "b-c_best"
