"""export.py as a user runs it: transformers and PEFT read what it writes, the way back is exact, and what has no such form is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.encoder import Encoder
from models.huggingface import export, open_clip_config
from models.huggingface.clip_config import clip_model_config, huggingface_config, preprocessor_config
from models.loading import load_encoder
from models.lora import fold_lora
from models.tensors import read_safetensors
from models.tunings import TuningOptions, apply_tuning, stored_parameters
from tests.helpers import files_below, run_here, run_script
from tests.models import small
from tests.models.test_huggingface import SMALL, features, write_small

LORA = TuningOptions(rank=4, lora_scale=0.7, lora_targets="q,k,v,out,mlp")
PROMPTS = ["a photo of a cat.", "It's 12 o'clock!", "naïve café  two"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.write_local_dir(tmp_path_factory.mktemp("base"))


def tuned(model: str, tuning: str, folder: Path, options: TuningOptions = LORA) -> tuple[Path, Encoder]:
    """A checkpoint whose parameters have moved, and its encoder."""
    encoder = load_encoder(model)
    base = base_sha256(encoder)
    apply_tuning(encoder, tuning, options, classnames=("cat", "dog"))
    generator = torch.Generator().manual_seed(3)
    for parameter in stored_parameters(encoder).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    path = folder / f"{tuning}.safetensors"
    save_checkpoint(path, encoder, make_header(encoder, tuning, options, base, classnames=("cat", "dog")))
    return path, encoder


def exported(out: Path, *flags: object, to: str = "huggingface") -> Path:
    assert run_here("export", *flags, "--to", to, "--out", out).succeeded().stdout == f"written: {out}\n"
    return out


def hugging_face(folder: Path, kind: str = "CLIPModel") -> Any:
    """The folder as transformers loads it; every tensor must have come from it."""
    import transformers

    loaded, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    return loaded.eval()


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@torch.no_grad()
def assert_same_features(encoder: Encoder, theirs: Any, tokenizer: Any) -> None:
    images = small.pixels(encoder)
    tokens = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    pairs = [
        (encoder.encode_image(images), features(theirs.get_image_features(images))),
        (encoder.encode_text(encoder.tokenize(PROMPTS)), features(theirs.get_text_features(**tokens))),
    ]
    for ours, unnormalised in pairs:
        torch.testing.assert_close(ours, F.normalize(unnormalised, dim=-1), rtol=0, atol=1e-5)


# There and back


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_checkpoint_is_a_model_of_transformers_and_comes_back_to_the_bit(tuning: str, model: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path, encoder = tuned(model, tuning, tmp_path)
    folder = exported(tmp_path / "new" / "out", "--model-path", path)
    assert_same_features(encoder, hugging_face(folder), AutoTokenizer.from_pretrained(folder))
    back = load_encoder(str(folder))
    before = small.embeddings(encoder)
    fold_lora(encoder)
    assert_equal(dict(encoder.model.state_dict()), dict(back.model.state_dict()))
    for left, right in zip(before, small.embeddings(back), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)
    one, other = files_below(folder), files_below(exported(tmp_path / "again", "--model-name", folder))
    assert len({files.pop("model.safetensors")[-1000:] for files in (one, other)}) == 1  # the order within a header is anyone's
    assert one == other


@pytest.mark.parametrize("tuning", ["full", "l-lora"])
def test_the_vision_tower_alone(tuning: str, model: str, tmp_path: Path) -> None:
    """As the released fine-tuned encoders are: 16 L + 7 tensors in the spelling of transformers 4."""
    path, encoder = tuned(model, tuning, tmp_path, TuningOptions(rank=2, towers="vision"))
    folder = exported(tmp_path / "out", "--model-path", path, "--vision-only")
    tensors, metadata = read_safetensors(folder / "model.safetensors")
    assert len(tensors) == 16 * 3 + 7 and all(name.startswith("vision_model.") for name in tensors)
    assert metadata == {"format": "pt"}
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert json.loads((folder / "config.json").read_text())["model_type"] == "clip_vision_model"
    with torch.no_grad():
        pooled = hugging_face(folder, "CLIPVisionModel")(small.pixels(encoder)).pooler_output
        torch.testing.assert_close(F.normalize(pooled @ encoder.image_tower.proj, dim=-1), encoder.encode_image(small.pixels(encoder)))


def test_a_hugging_face_model_with_its_own_tokenizer(tmp_path: Path) -> None:
    """Odd sizes, another activation, another epsilon, another end of text."""
    write_small(tmp_path / "in", SMALL)
    folder = exported(tmp_path / "out", "--model-name", tmp_path / "in")
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "in" / "tokenizer.json").read_bytes()
    one, other = (load_encoder(str(each)) for each in (tmp_path / "in", folder))
    assert_equal(dict(one.model.state_dict()), dict(other.model.state_dict()))
    assert torch.equal(one.tokenize(["cat", "dog"]), other.tokenize(["cat", "dog"]))
    assert_equal(dict(hugging_face(tmp_path / "in").state_dict()), dict(hugging_face(folder).state_dict()))


def test_prompts_and_images_are_prepared_alike(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    folder = exported(tmp_path / "out", "--model-name", "tiny")
    encoder, processor = load_encoder("tiny"), AutoProcessor.from_pretrained(folder)
    for row, ids in zip(encoder.tokenize(PROMPTS).tolist(), processor(text=PROMPTS)["input_ids"], strict=True):
        assert row[: len(ids)] == ids
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(encoder.preprocess(image), theirs, rtol=0, atol=1e-6)
    assert_same_features(encoder, hugging_face(folder), processor.tokenizer)


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "as OpenAI's": ({}, {}, True),
    "plain GELU": ({}, {}, False),
    "tanh": ({"act_kwargs": {"approximate": "tanh"}}, {"act_kwargs": {"approximate": "tanh"}}, False),
    "epsilons": ({"norm_kwargs": {"eps": 1e-6}}, {"norm_kwargs": {"eps": 1e-3}}, True),
    "end of text": ({}, {"vocab_size": 99, "pool_type": "eos", "eos_id": 7}, True),
    "odd widths": ({"mlp_ratio": 49 / 32}, {"mlp_ratio": 3.0, "vocab_size": 99}, True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configuration_is_read_off_the_modules(name: str) -> None:
    vision, text, quick = CONFIGS[name]
    given = {"embed_dim": 16, "vision_cfg": {**small.VISION, **vision}, "text_cfg": {**small.TEXT, **text}, "quick_gelu": quick}
    encoder = small.encoder(open_clip.CLIP(**given))
    found = clip_model_config(encoder)
    rebuilt = open_clip.CLIP(**found)
    assert {key: tensor.shape for key, tensor in rebuilt.state_dict().items()} == {
        key: tensor.shape for key, tensor in encoder.model.state_dict().items()
    }
    assert clip_model_config(small.encoder(rebuilt)) == found
    back = open_clip_config(huggingface_config(found, vision_only=False))
    if found["text_cfg"]["vocab_size"] == small.VOCABULARY:  # its last token ends a text, so both say the same
        assert back["text_cfg"].pop("eos_id") == small.VOCABULARY - 1 and back["text_cfg"].pop("pool_type") == "eos"
        assert found["text_cfg"].pop("pool_type") == "argmax"
    assert back == found


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        ({"resize_mode": "shortest"}, {"size": {"shortest_edge": 32}, "do_center_crop": True, "resample": 3}),
        (
            {"resize_mode": "squash", "interpolation": "bilinear"},
            {"size": {"height": 32, "width": 32}, "do_center_crop": False, "resample": 2},
        ),
    ],
)
def test_how_images_are_resized(preprocess: dict[str, str], expected: dict[str, Any]) -> None:
    encoder = small.encoder(small.clip())
    encoder.image_tower.preprocess_cfg = {"size": 32, **preprocess}
    found = preprocessor_config(encoder)
    assert {key: found[key] for key in expected} == expected
    encoder.image_tower.preprocess_cfg = {"size": 32, "resize_mode": "longest"}
    with pytest.raises(UserError, match="'small' resizes images by longest, bicubic, which CLIPImageProcessor does not do"):
        preprocessor_config(encoder)


# Adapters


@pytest.mark.parametrize(("tuning", "towers"), [("lora", "both"), ("l-lora", "vision")])
def test_an_adapter_is_w_plus_alpha_over_r_b_a(tuning: str, towers: str, model: str, tmp_path: Path) -> None:
    """PEFT's sum, written out on the tensors of the exported base, gives those of the exported checkpoint."""
    path, _ = tuned(model, tuning, tmp_path, TuningOptions(rank=4, lora_scale=0.7, lora_targets="q,k,v,out,mlp", towers=towers))
    adapter = exported(tmp_path / "adapter", "--model-path", path, to="peft")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, model)
    sides = ("vision", "text") if towers == "both" else ("vision",)
    maps = [*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2"]
    layers = [f"{side}_model.encoder.layers.{number}" for side in sides for number in range(3)]
    assert sorted(config["target_modules"]) == sorted(f"{layer}.{name}" for layer in layers for name in maps)
    base, wanted = (
        read_safetensors(exported(tmp_path / name, *flags) / "model.safetensors")[0]
        for name, flags in (("base", ("--model-name", model)), ("whole", ("--model-path", path)))
    )
    factors = read_safetensors(adapter / "adapter_model.safetensors")[0]
    assert len(factors) == 2 * len(config["target_modules"])
    for module in config["target_modules"]:
        a, b = (factors[f"base_model.model.{module}.lora_{letter}.weight"] for letter in "AB")
        base[f"{module}.weight"] = base[f"{module}.weight"] + config["lora_alpha"] / config["r"] * b @ a
    for name, tensor in wanted.items():
        torch.testing.assert_close(base[name], tensor, rtol=0, atol=1e-6)


def test_peft_reads_an_adapter(model: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    path, encoder = tuned(model, "lora", tmp_path)
    base = hugging_face(exported(tmp_path / "base", "--model-name", model))
    adapted = peft.PeftModel.from_pretrained(base, exported(tmp_path / "adapter", "--model-path", path, to="peft")).eval()
    images = small.pixels(encoder)
    with torch.no_grad():
        theirs = F.normalize(features(adapted.base_model.model.get_image_features(images)), dim=-1)
        torch.testing.assert_close(theirs, encoder.encode_image(images), rtol=0, atol=1e-5)


def test_merging_reads_an_adapter(model: str, tmp_path: Path) -> None:
    sources = pytest.importorskip("merging.sources")
    path, encoder = tuned(model, "l-lora", tmp_path, TuningOptions(rank=4, lora_scale=0.7, towers="vision"))
    adapter = exported(tmp_path / "adapter", "--model-path", path, to="peft")
    weights = sources.open_weights(str(adapter), sources.open_weights(model))
    fold_lora(encoder)
    for name, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(weights.read(name), tensor, rtol=0, atol=1e-6)


# Refusals


def _without_mask() -> nn.Module:
    return small.clip(no_causal_mask=True)


def _average_pooled() -> nn.Module:
    return open_clip.CLIP(embed_dim=32, vision_cfg={**small.VISION, "pool_type": "avg"}, text_cfg=small.TEXT)


def _last_token() -> nn.Module:
    return small.clip(pool_type="last")


def _scaled_layers() -> nn.Module:
    return open_clip.CLIP(embed_dim=32, vision_cfg={**small.VISION, "ls_init_value": 0.1}, text_cfg=small.TEXT)


OTHERS: list[Callable[[], nn.Module]] = [
    *(small.coca, small.siglip, small.siglip_text, small.eva02, small.slip, small.resnet, small.convnext, small.custom_text),
    *(_without_mask, _average_pooled, _last_token, _scaled_layers),
]


@pytest.mark.parametrize("build", OTHERS)
def test_other_architectures_have_no_such_form(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    length = 76 if build is small.coca else 77
    encoder = small.encoder(build(), length=16, vocabulary=320) if build is small.siglip_text else small.encoder(build(), length=length)
    encoder.image_tower.preprocess_cfg = {"size": 32}
    with pytest.raises(UserError, match=r"^'small' \(\w+ and \w+\) has no Hugging Face CLIP form; only OpenAI's architecture has one"):
        export.export_clip(encoder, tmp_path / "out", vision_only=build is _average_pooled)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("tuning", "to"), [("adapter", "huggingface"), ("parallel-adapter", "huggingface"), ("probe", "peft")])
def test_what_stands_behind_the_towers_has_no_such_form(tuning: str, to: str, model: str, tmp_path: Path) -> None:
    path, _ = tuned(model, tuning, tmp_path)
    run_here("export", "--model-path", path, "--to", to, "--out", tmp_path / "out").refused("adapter or a probe has no Hugging Face form")


def test_what_is_there_is_not_overwritten(model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run_here("export", "--model-name", model, "--to", "huggingface", "--out", tmp_path / "out").refused(tmp_path / "out", "exists")
    assert files_below(tmp_path) == {"out/notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    exported(tmp_path / "empty", "--model-name", model)


@pytest.mark.parametrize("at", ["write_json", "write_safetensors", "write_tokenizer"])
def test_an_export_that_fails_leaves_nothing(at: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(export, at, full)
    run_here("export", "--model-name", model, "--to", "huggingface", "--out", tmp_path / "out").refused("The disk is full")
    assert not list(tmp_path.iterdir())


def test_flags_that_do_not_fit(model: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    run_here("export", "--to", "huggingface", *out).refused("Nothing to export", "--model-path", "--model-name")
    run_here("export", "--model-name", model, "--to", "peft", *out).refused("carries no LoRA", "--to huggingface")
    run_here("export", "--model-name", model, "--to", "peft", "--vision-only", *out).refused("--vision-only belongs to --to huggingface")
    run_here("export", "--model-name", model, "--to", "onnx", *out).refused("--to", "onnx")
    assert not (tmp_path / "out").exists()


def test_help() -> None:
    assert "CLIPVisionModel" in run_script("export", "--help").succeeded().stdout
