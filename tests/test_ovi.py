"""ovi.py as users run it: texts of a retrieval task, and the class names of a classification data set."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from inversion.pseudo_image import PseudoImage
from inversion.pseudo_tokens import load_pseudo_tokens
from models.selection import model_slug, select_encoder
from tests.helpers import run_here

CAPTIONS = [["a cat", "a small cat", "the cat sits"], ["a dog", "one dog runs", ""], ["red_bus", "a red bus " + 90 * "very "]]


@pytest.fixture
def data(tmp_path):
    """COCO with three images in its test split, of three, three and two captions."""
    images = [
        {"split": "test", "imgid": number, "sentences": [{"raw": text, "sentid": 10 * number + at} for at, text in enumerate(texts)]}
        for number, texts in enumerate(CAPTIONS)
    ]
    (tmp_path / "COCO2014").mkdir()
    (tmp_path / "COCO2014/dataset_coco_light.json").write_text(json.dumps({"images": images}))
    return tmp_path


@pytest.fixture
def invert(small_model, tmp_path):
    """A function: run the script, 8 steps."""
    places = ["--outfolder", tmp_path / "pseudo", "--features", tmp_path / "features", "--outfile", tmp_path / "retrieval.csv"]

    def run(*more, steps=8):
        return run_here("ovi", "--model-name", small_model, "--ovi-steps", steps, *places, "--num-workers", 0, "--device", "cpu", *more)

    return run


@pytest.fixture
def folder(tmp_path, small_model):
    return tmp_path / "pseudo/ovi" / model_slug(str(small_model))


def embedded(small_model, texts):
    encoder = select_encoder(str(small_model), None, {}).encoder
    with torch.no_grad():
        return encoder, encoder.encode_text(encoder.tokenize(texts))


def test_captions_are_inverted_as_they_are(invert, data, folder, small_model):
    """No template, no underscore replaced: what is searched for is what was written."""
    invert("--dataset-name", "coco_text", "--dataroot", data, "--num-pseudo-tokens", 4, "--template-sentence", "no {}").succeeded()
    found = load_pseudo_tokens(folder / "COCO_test_query")
    assert found.names == ["0", "10", "20"]
    assert found.pseudo_tokens.shape == (3, 1, 4, 32)
    encoder, targets = embedded(small_model, ["a cat", "a dog", "red_bus"])
    with torch.no_grad():
        features = PseudoImage(encoder, 4).features(found.pseudo_tokens[:, 0])
    np.testing.assert_allclose(found.features[:, 0], features.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.losses[:, 0], (1 - F.cosine_similarity(features, targets)).numpy(), rtol=0, atol=1e-5)
    settings = {"kind": "ovi", "template": "{}", "num_pseudo_tokens": 4, "steps": 8, "n_items": 3}
    assert settings.items() <= found.hyperparameters.items()


def test_empty_and_long_texts_are_told(invert, data, folder):
    ended = invert("--dataset-name", "COCO", "--data-dir", data, "--side", "gallery", "--validate").succeeded()
    assert "1 of 5 texts are empty and left out\n" in ended.stdout
    assert "1 of 4 texts fill the context of 77 tokens" in ended.stdout
    found = load_pseudo_tokens(folder / "COCO_test_gallery")
    assert found.names == ["1", "2", "11", "21"]
    assert found.hyperparameters["n_empty"] == 1
    assert "\ntext -> ovi " in ended.stdout


def test_validation_among_texts(invert, data, tmp_path):
    ended = invert("--dataset-name", "COCO", "--data-dir", data, "--validate").succeeded()
    lines = ended.stdout.split("seconds\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["text", "ovi"]
    assert len((tmp_path / "retrieval.csv").read_text().splitlines()) == 3


def test_class_names(invert, folder, small_model):
    invert("--dataset-name", "Digits", "--use-class-names", "--template-sentence", "a drawing of {}.", "--exp-name", "names").succeeded()
    found = load_pseudo_tokens(folder.with_name("names") / "Digits_test_classes")
    assert len(found.names) == 10
    _, targets = embedded(small_model, [f"a drawing of {name}." for name in found.names])
    losses = 1 - F.cosine_similarity(torch.from_numpy(found.features[:, 0]), targets)
    np.testing.assert_allclose(found.losses[:, 0], losses.numpy(), rtol=0, atol=1e-5)
    assert found.hyperparameters["template"] == "a drawing of {}."


def test_mistakes_are_told_in_a_sentence(invert, data):
    invert("--dataset-name", "Digits").refused("Digits", "--use-class-names")
    invert("--dataset-name", "COCO", "--data-dir", data, "--use-class-names").refused("COCO has no class names")
    invert("--dataset-name", "Digits", "--use-class-names", "--validate").refused("--validate", "--class-features ovi")
    invert("--dataset-name", "COCO", "--data-dir", data, "--num-pseudo-tokens", 17).refused("17 pseudo-patches", "16 patches")
