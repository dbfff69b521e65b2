"""The four architectures of the paper through every command, with random weights: no download.

SigLIP's tokenizer has to be fetched from a hub. A stub stands in for it that makes [n, 64] token ids of the letters; its
tower and its weights are open_clip's own. Training all weights is done with two blocks in each tower, because the files of a
full run are four times the model; all else is of full size.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor, nn

from common.files import read_csv
from engine.embeddings import load_embeddings
from models.checkpoint import read_header
from models.tensors import read_safetensors
from tests.helpers import run_here, write_images

WIDTHS = {"ViT-B-32-quickgelu": 512, "coca_ViT-B-32": 512, "EVA02-B-16": 512, "ViT-B-16-SigLIP": 768}
QUICK = ["--num-workers", 0, "--device", "cpu"]


def letters(prompts: list[str]) -> Tensor:
    """One token id a letter, padded to 64 as SigLIP's tokenizer pads."""
    return torch.tensor([[3 + ord(letter) for letter in prompt[:64].ljust(64, "\x01")] for prompt in prompts])


def keep_two_blocks(model: nn.Module) -> nn.Module:
    for module in [*model.modules()]:
        for name in ("resblocks", "blocks"):
            if isinstance(blocks := getattr(module, name, None), nn.ModuleList | nn.Sequential):
                setattr(module, name, blocks[:2])
    return model


@pytest.fixture(autouse=True)
def without_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stub for SigLIP's tokenizer; and the memory of one model given back before the next."""
    real = open_clip.get_tokenizer
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **how: letters if "SigLIP" in name else real(name, **how))
    yield
    gc.collect()


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two colours: 4 training images, of which one is for validation, and 4 test images."""
    folder = tmp_path_factory.mktemp("two")
    for split in ("train", "test"):
        write_images(folder / split, 2, colors=["blue", "red"])
    return f"imagefolder:{folder}"


def train(architecture: str, tuning: str, name: str, folder: Path, *more: object) -> Path:
    """The best checkpoint of one epoch."""
    how = ["--bs", 4, "--nepochs", 1, "--lr", 1e-3, "--val-p", 0.25, "--model-dir", folder, *QUICK, *more]
    run_here("train", "--dataset", name, "--model-name", tuning, "--base-model", f"{architecture}/random", *how).succeeded()
    (path,) = folder.glob(f"*_{tuning}*_best.safetensors")
    return path


@pytest.mark.parametrize("architecture", WIDTHS)
def test_lora_then_test_embed_and_measure(architecture: str, name: str, tmp_path: Path) -> None:
    path = train(architecture, "lora", name, tmp_path, "--rank", 2, "--optimizer", "AdamW")
    assert read_header(path).model == f"{architecture}/random"
    run_here("test", "--model-path", path, "--eval-datasets", name, "--outfile", tmp_path / "r.csv", "--bs", 3, *QUICK).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert (row["model"], row["tuning"], row["n_images"]) == (f"{architecture}/random", "lora", "4")
    assert float(row["top1"]) in (0.0, 0.25, 0.5, 0.75, 1.0)
    how = ["--split", "test", "--outfolder", tmp_path / "embeddings", "--batch-size", 3, *QUICK]
    run_here("get_embeddings", "--model-name", f"{architecture}/random", "--datasets", name, *how).succeeded()
    (main_file,) = (tmp_path / "embeddings").rglob("*.safetensors")
    found = load_embeddings(main_file)
    assert found.image_embeddings.shape == (4, WIDTHS[architecture])
    assert found.text_embeddings.shape == (2, WIDTHS[architecture])
    np.testing.assert_allclose(np.linalg.norm(found.image_embeddings, axis=1), 1, atol=1e-5)
    assert np.abs(found.image_embeddings[0] - found.image_embeddings[3]).max() > 1e-3  # they are not all one vector
    ended = run_here("get_metric_scores", "--embeddings", main_file, "--outpath", tmp_path / "scores.csv").succeeded()
    assert "iimm" in ended.stdout


@pytest.mark.parametrize("architecture", WIDTHS)
def test_training_all_weights_moves_every_one_and_comes_back(
    architecture: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracy of the checkpoint, loaded anew, is the one that the run measured; the logit scale trains too."""
    real = open_clip.create_model
    monkeypatch.setattr(open_clip, "create_model", lambda *what, **how: keep_two_blocks(real(*what, **how)))
    path = train(architecture, "full", name, tmp_path, "--clip-norm", 1)
    header = read_header(path)
    tensors, _ = read_safetensors(path)
    assert {"model.logit_scale"} <= tensors.keys()
    assert not any("text_decoder" in each for each in tensors)  # CoCa's captions take no part
    how = ["--split", "val", "--val-p", 0.25, "--outfile", tmp_path / "r.csv", *QUICK]
    run_here("test", "--model-path", path, "--eval-datasets", name, *how).succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert float(row["top1"]) == header.val_accuracy
    base = keep_two_blocks(_random(architecture, real)).state_dict()
    still = [each for each, tensor in tensors.items() if torch.equal(tensor, base[each.removeprefix("model.")])]
    assert [each for each in still if not _has_no_gradient(each)] == []


def _random(architecture: str, create_model: object) -> nn.Module:
    from models.loading import load_encoder

    return load_encoder(f"{architecture}/random").model


def _has_no_gradient(name: str) -> bool:
    """A key's bias shifts all of a query's scores alike, which the softmax does not see."""
    return "k_proj.bias" in name or "k_bias" in name
