"""SLIP checkpoints in the released form: the features are those of SLIP's own formulas, and nothing in the file is run."""

from __future__ import annotations

import os
import pathlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from common.errors import UserError
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from models.checkpoint import base_sha256, load_checkpoint, make_header, save_checkpoint
from models.image_tower import ImageTower
from models.loading import load_encoder
from models.projections import image_projection
from models.selection import model_slug
from models.slip import SIZES, files, random_slip
from models.tunings import TuningOptions, apply_tuning, trained_parameters
from models.zoo import SLIP, ModelSource, canonical_name, resolve
from tests.models import slip_checkpoint as slip
from tests.models.slip_checkpoint import SMALL, released, write_checkpoint

NAME = "SLIP-ViT-B-16"
PROMPTS = ["a photo of a cat", "a centered satellite photo of an annual crop land, seen from above", "dog"]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model is a small one here."""
    monkeypatch.setitem(SIZES, NAME, SMALL)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return released()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("slip") / "slip_base_100ep.pt", tensors)


def pixels(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_features_are_those_of_the_released_formulas(checkpoint: Path, tensors: dict[str, torch.Tensor]) -> None:
    encoder = load_encoder(f"{NAME}/{checkpoint}")
    with torch.no_grad():
        images, texts = encoder.encode_image(pixels()), encoder.encode_text(encoder.tokenize(PROMPTS))
    assert encoder.embed_dim == SMALL.embed_dim
    assert (images - slip.image_features(tensors, SMALL, pixels())).abs().max() < 1e-6
    assert (texts - slip.text_features(tensors, SMALL, SimpleTokenizer()(PROMPTS))).abs().max() < 1e-5
    assert encoder.logit_scale.item() == pytest.approx(4.6)
    assert encoder.logit_bias is None
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_sizes_are_the_released_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of SLIP's own timm models, 12 heads in the small one; B/16 is built once, without memory."""
    monkeypatch.undo()
    assert {name: (sizes.width, sizes.layers, sizes.heads) for name, sizes in SIZES.items()} == {
        "SLIP-ViT-S-16": (384, 12, 12),
        "SLIP-ViT-B-16": (768, 12, 12),
        "SLIP-ViT-L-16": (1024, 24, 16),
    }
    assert SLIP.keys() == SIZES.keys()
    with torch.device("meta"):
        model = random_slip(NAME, 0)
    blocks, text = model.visual.trunk.blocks, model.transformer.resblocks
    assert [len(blocks), blocks[0].attn.num_heads, len(text), text[0].attn.num_heads] == [12, 12, 12, 8]
    assert (model.context_length, model.vocab_size, model.visual.preprocess_cfg["size"]) == (77, 49408, 224)
    assert [tuple(tensor.shape) for tensor in (model.visual.head.proj.weight, model.text_projection)] == [(512, 768), (512, 512)]


def test_random_weights_are_the_same_every_time() -> None:
    first, again = (load_encoder(f"{NAME}/random").model.state_dict() for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_another_number_of_heads_is_another_model(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """No tensor's shape tells the number of heads, so nothing but the table can be wrong about it."""
    with torch.no_grad():
        four = load_encoder(f"{NAME}/{checkpoint}").encode_image(pixels())
        monkeypatch.setitem(SIZES, NAME, slip.SlipSizes(**(vars(SMALL) | {"heads": 2})))
        assert (load_encoder(f"{NAME}/{checkpoint}").encode_image(pixels()) - four).abs().max() > 1e-3


def test_images_are_prepared_as_slip_does(checkpoint: Path) -> None:
    noise = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    image = Image.fromarray(noise.numpy())
    own = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    assert torch.equal(load_encoder(f"{NAME}/{checkpoint}").preprocess(image), own(image))


def test_loading_moves_no_random_state_and_needs_no_simclr_head(checkpoint: Path, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state = torch.get_rng_state()
    model = load_encoder(f"{NAME}/{checkpoint}").model
    assert torch.equal(state, torch.get_rng_state())
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("image_mlp.")}
    save_file(without, tmp_path / "released_names.safetensors")
    save_file(model.state_dict(), tmp_path / "own_names.safetensors")
    for path in tmp_path.iterdir():
        again = load_encoder(f"{NAME}/{path}").model.state_dict()
        assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    state_dict = tmp_path / "bare.pt"
    torch.save(tensors, state_dict)
    assert base_sha256(load_encoder(f"{NAME}/{state_dict}")) == base_sha256(load_encoder(f"{NAME}/{checkpoint}"))


def test_half_precision_weights_are_read_as_float32(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    model = load_encoder(f"{NAME}/{write_checkpoint(tmp_path / 'half.pt', half)}").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.text_projection, half["text_projection"].float())


def test_the_form_of_torch_before_1_6_is_read_too(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": tensors}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_encoder(f"{NAME}/{tmp_path / 'old.pt'}").model.text_projection, tensors["text_projection"])


def test_tunings_and_their_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    name = f"{NAME}/{checkpoint}"
    encoder, options = load_encoder(name), TuningOptions(rank=2)
    base = base_sha256(encoder)
    apply_tuning(encoder, "lora", options)
    for parameter in trained_parameters(encoder).values():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "tuned.safetensors", encoder, make_header(encoder, "lora", options, base))
    again, header = load_checkpoint(tmp_path / "tuned.safetensors")
    assert header.model == name
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels()), encoder.encode_image(pixels()))


def test_pseudo_tokens_and_pseudo_patches_go_through_it(checkpoint: Path) -> None:
    """A word's true embedding is the sentence with that word; the true patches are the image."""
    encoder = load_encoder(f"{NAME}/{checkpoint}")
    with torch.no_grad():
        sentence = encoder.tokenize(["a photo of cat"])
        forms = [PseudoText(encoder, "a photo of {}", form=form) for form in ("cached", "cut", "full")]
        word = encoder.text_tower.embed(sentence)[:, forms[0].slots]
        for form in forms:
            assert (form.features(word) - encoder.encode_text(sentence)).abs().max() < 1e-5
        patches = ImageTower(encoder).embed_patches(pixels())
        whole = PseudoImage(encoder, patches.shape[1])
        assert (whole.features(patches) - encoder.encode_image(pixels())).abs().max() < 1e-5
        assert torch.equal(image_projection(encoder), encoder.image_tower.head.proj.weight)


class Shouting:
    """Reading a pickle of it calls ``os.mkdir``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_the_file_is_run(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = write_checkpoint(tmp_path / "evil.pt", tensors, best_acc1=Shouting(trap))
    with pytest.raises(UserError, match=r"evil\.pt' .*") as refused:
        load_encoder(f"{NAME}/{path}")
    assert not trap.exists()
    assert "\n" not in str(refused.value)
    counted = write_checkpoint(tmp_path / "fraction.pt", tensors, best_acc1=pathlib.PureWindowsPath("C:/x"))
    with pytest.raises(UserError, match=r"was not loaded: it names 'pathlib.*PureWindowsPath', whose reading could run code; save"):
        load_encoder(f"{NAME}/{counted}")


def test_what_lies_beside_the_tensors_is_not_kept_and_nothing_stays_allowed(checkpoint: Path) -> None:
    """The stand-in for a namespace, a path and a number takes anything and keeps nothing."""
    unread = files._Unread("any", 3)
    unread.__setstate__({"model": "SLIP_VITB16"})
    assert not hasattr(unread, "model")
    assert not hasattr(unread, "__dict__")
    allowed = set(torch.serialization.get_safe_globals())
    files.read_tensors(checkpoint)
    assert set(torch.serialization.get_safe_globals()) == allowed
    with pytest.raises(pickle.UnpicklingError, match="was not an allowed global"):
        torch.load(checkpoint, weights_only=True)


def changed(tensors: dict[str, torch.Tensor], drop: str = "", **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not (drop and name.startswith(drop))} | more


def wrong_files(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, Any, str]]:
    visual = {name: tensor for name, tensor in tensors.items() if name.startswith(("visual.", "image_mlp."))}
    yield "simclr.pt", visual, "is a SimCLR checkpoint: without a text tower there is nothing to compare"
    yield "clip.pt", changed(tensors, "image_mlp."), "is a CLIP checkpoint of SLIP's repository: it has no SimCLR head"
    yield "openai.pt", {"visual.proj": torch.zeros(2, 2), "token_embedding.weight": torch.zeros(2, 2)}, "is no SLIP checkpoint"
    yield "lacking.pt", changed(tensors, "visual.blocks.1.norm1.bias"), r"it lacks 'visual\.trunk\.blocks\.1\.norm1\.bias'"
    yield (
        "shape.pt",
        changed(tensors, ln_final=torch.zeros(1)) | {"ln_final.bias": torch.zeros(5)},
        r"is torch\.float32 \[5\], not float \[64\]",
    )
    yield "more.pt", changed(tensors, other=torch.zeros(1)), "has no place for 'other'"
    yield "whole.pt", changed(tensors) | {"ln_final.bias": torch.zeros(64, dtype=torch.int64)}, r"is torch\.int64 \[64\], not float"
    yield "cube.pt", changed(tensors, image_projection=torch.zeros(2, 2, 2)), "is no SLIP checkpoint"


@pytest.mark.parametrize("index", range(8))
def test_wrong_files(index: int, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file, content, message = list(wrong_files(tensors))[index]
    with pytest.raises(UserError, match=message) as refused:
        load_encoder(f"{NAME}/{write_checkpoint(tmp_path / file, content)}")
    assert str(tmp_path / file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_of_another_size_name_it(tmp_path: Path) -> None:
    wide = {"image_projection": torch.zeros(1024, 32), "token_embedding.weight": torch.zeros(2, 2), "image_mlp.layer1.bias": torch.zeros(1)}
    path = write_checkpoint(tmp_path / "large.pt", wide)
    with pytest.raises(UserError, match=f"it is of the size 'SLIP-ViT-L-16'; write 'SLIP-ViT-L-16/{path}'"):
        load_encoder(f"{NAME}/{path}")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"state_dict": {}}, {"epoch": 3}])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt' holds no state dict"):
        load_encoder(f"{NAME}/{tmp_path / 'other.pt'}")


def test_damaged_files(checkpoint: Path, tmp_path: Path) -> None:
    for place, content in {"cut.pt": checkpoint.read_bytes()[:5000], "text.pt": b"<html>not found</html>", "empty.pt": b""}.items():
        (tmp_path / place).write_bytes(content)
        with pytest.raises(UserError, match=f"{place}' is not a readable PyTorch file; it is truncated"):
            load_encoder(f"{NAME}/{tmp_path / place}")


def test_names(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    spellings = [f"{NAME}/slip_base_100ep.pt", f"{NAME}/./slip_base_100ep.pt"]
    assert resolve(spellings[1]) == ModelSource(spellings[1], "slip", NAME, "slip_base_100ep.pt")
    assert {canonical_name(name) for name in spellings} == {spellings[0]}
    assert canonical_name(f"{NAME}/{checkpoint}") == f"{NAME}/{checkpoint}"
    slugs = {model_slug(name) for name in (*spellings, f"{NAME}/{checkpoint}")}
    assert len(slugs) == 1
    assert slugs.pop().startswith("SLIP-ViT-B-16-slip_base_100ep-")
    assert model_slug(f"{NAME}/random") == "SLIP-ViT-B-16-random"
    assert model_slug(f"{NAME}/other/slip_base_100ep.pt") != model_slug(spellings[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SLIP-ViT-B-16", "is an architecture without weights; name their file too, e.g. 'SLIP-ViT-B-16/slip_base_100ep.pt'"),
        ("SLIP_VITL16", "is an architecture without weights; name their file too, e.g. 'SLIP-ViT-L-16/slip_large_100ep.pt'"),
        ("slip", "is an architecture without weights; name their file too, e.g. 'SLIP-ViT-"),
        ("SLIP-ViT-B-16/", "'SLIP-ViT-B-16/' names no file; the weights of 'SLIP-ViT-B-16' are, e.g., the released slip_base_100ep.pt"),
        ("SLIP-ViT-B-16/no/such.pt", "There is no file 'no/such.pt'; the weights of 'SLIP-ViT-B-16' are, e.g., the released slip_base_"),
        ("SLIP-ViT-B-61/slip_base_100ep.pt", r"Unknown architecture 'SLIP-ViT-B-61'; did you mean 'SLIP-ViT-B-16'\?"),
        ("slip-vit-l-16/x.pt", r"Unknown architecture 'slip-vit-l-16'; did you mean 'SLIP-ViT-L-16'\?"),
    ],
)
def test_typing_errors(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(name)
