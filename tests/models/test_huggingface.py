"""Hugging Face CLIP against transformers itself: features, names, tokenizers, image processors, and ways to be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from common.errors import UserError
from models.huggingface import (
    convert_state_dict,
    convert_vision_state_dict,
    find_weights,
    is_huggingface_clip,
    is_huggingface_vision,
    load_huggingface_clip,
    load_tokenizer,
    model_config,
    open_clip_config,
    preprocess_config,
    read_weights,
    resolve,
    tensor_pairs,
    to_huggingface_state_dict,
    to_huggingface_vision_state_dict,
)

TOLERANCE = 1e-5

B32: dict[str, Any] = {"projection_dim": 512}
B16: dict[str, Any] = {"projection_dim": 512, "vision_config": {"patch_size": 16}}
L14: dict[str, Any] = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
    },
}  # fmt: skip
SMALL_TEXT: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 5,
    "max_position_embeddings": 19, "hidden_act": "gelu", "layer_norm_eps": 1e-3, "bos_token_id": 94, "eos_token_id": 95,
}  # fmt: skip
SMALL_VISION: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 130, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 37, "patch_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
SMALL: dict[str, Any] = {"projection_dim": 29, "text_config": SMALL_TEXT, "vision_config": SMALL_VISION}
QUICK = {"hidden_act": "quick_gelu"}
SMALL_BATCH = torch.randn(2, 3, 37, 37, generator=torch.Generator().manual_seed(3))


def random_clip(config: dict[str, Any]) -> CLIPModel:
    """A model with random weights, whose vectors (LayerNorms, biases) are random too rather than ones and zeros."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.logit_scale.fill_(4.25)
    return model


def small_tokenizer() -> CLIPTokenizer:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    vocabulary |= {"<|startoftext|>": 94, "<|endoftext|>": 95, "dog</w>": 96}  # a token above end-of-text: argmax would be wrong
    return CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")][:2])


def features(output: Any) -> Tensor:
    """transformers 4 returns the features, transformers 5 an object around them."""
    return output if isinstance(output, Tensor) else output.pooler_output


def assert_same_features(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-5, as they are and normalised; the features must not be trivially alike."""
    assert ours.shape == theirs.shape and theirs.norm(dim=1).min() > 0.1
    normalised = [torch.nn.functional.normalize(side, dim=1) for side in (ours, theirs)]
    assert (ours - theirs).abs().max() <= TOLERANCE
    assert (normalised[0] - normalised[1]).abs().max() <= TOLERANCE


@torch.no_grad()
def compare(model: CLIPModel, ours: CLIP, images: Tensor, tokens: Tensor, end_of_text: int) -> None:
    """Our features of ``tokens``, padded with 0, against theirs, padded with end-of-text and masked as their tokenizer does."""
    ends = (tokens == end_of_text).int().argmax(dim=1, keepdim=True)
    mask = (torch.arange(tokens.shape[1]) <= ends).long()
    theirs = features(model.get_text_features(tokens.masked_fill(mask == 0, end_of_text), attention_mask=mask))
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3  # the prompts do differ
    assert_same_features(ours.encode_text(tokens), theirs)
    assert_same_features(ours.encode_image(images), features(model.get_image_features(images)))


def assert_same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype and torch.equal(tensor, right[name]), name


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text()) if path.exists() else {}
    edit(value)
    path.write_text(json.dumps(value))


def write_small(folder: Path, config: dict[str, Any] = SMALL) -> CLIPModel:
    model = random_clip(config)
    model.save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def small_model() -> CLIPModel:
    return random_clip(SMALL)


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return folder


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small model's folder that a test may damage."""
    return Path(shutil.copytree(small_folder, tmp_path / "model"))


# Features


@pytest.fixture
def large_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "model"
    shutil.rmtree(tmp_path / "model")  # pytest keeps the folders of three runs


@pytest.mark.parametrize(("config", "images"), [(B32, 2), (B16, 1), (L14, 1)], ids=["B-32", "B-16", "L-14"])
def test_published_shapes(config: dict[str, Any], images: int, large_folder: Path) -> None:
    model = random_clip(config)
    model.save_pretrained(large_folder)
    loaded = load_huggingface_clip(str(large_folder))
    assert isinstance(loaded.tokenizer, SimpleTokenizer)
    tokens = loaded.tokenizer(["a photo of a cat", "dog " * 90])
    compare(model, loaded.model, torch.randn(images, 3, 224, 224), tokens, 49407)
    assert loaded.model.logit_scale.item() == 4.25
    back = to_huggingface_state_dict(loaded.model.state_dict(), loaded.model_cfg)
    assert_same_tensors(back, dict(model.state_dict()))


def test_small_model_with_unusual_settings(small_model: CLIPModel, small_folder: Path) -> None:
    loaded = load_huggingface_clip(str(small_folder))
    tokens = loaded.tokenizer(["cat", "a cat and a fox", "z " * 30])
    assert tokens.shape == (3, 19) and (tokens == 95).any(dim=1).all()
    compare(small_model, loaded.model, SMALL_BATCH, tokens, 95)
    assert loaded.folder == small_folder and loaded.model.visual.image_size == (37, 37)


def test_pooling_takes_the_first_end_of_text_and_not_the_greatest_id(small_model: CLIPModel, small_folder: Path) -> None:
    loaded = load_huggingface_clip(str(small_folder))
    tokens = torch.tensor([[94, 96, 1, 95, 96, 95], [94, 2, 3, 96, 95, 0], [94, 4, 5, 6, 7, 8]])  # the last has no end at all
    tokens = torch.nn.functional.pad(tokens, (0, 13))
    with torch.no_grad():
        assert_same_features(loaded.model.encode_text(tokens), features(small_model.get_text_features(tokens)))


def test_legacy_end_of_text_id_pools_at_the_greatest_id(tmp_path: Path) -> None:
    config = SMALL | {"text_config": SMALL_TEXT | {"eos_token_id": 2}}
    model = write_small(tmp_path, config)
    loaded = load_huggingface_clip(str(tmp_path))
    assert loaded.model.text_pool_type == "argmax"
    tokens = torch.nn.functional.pad(torch.tensor([[94, 1, 2, 3, 95], [94, 2, 95, 2, 1], [94, 96, 95, 0, 96]]), (0, 14))
    with torch.no_grad():
        assert_same_features(loaded.model.encode_text(tokens), features(model.get_text_features(tokens)))


@pytest.mark.parametrize(
    ("vision", "text"),
    [("quick_gelu", "quick_gelu"), ("gelu_new", "gelu_pytorch_tanh"), ("gelu_python", "gelu"), ("gelu", "gelu_new")],
)
def test_activations(vision: str, text: str, tmp_path: Path) -> None:
    config = SMALL | {
        "text_config": SMALL_TEXT | {"hidden_act": text, "hidden_size": 320, "intermediate_size": 600},
        "vision_config": SMALL_VISION | {"hidden_act": vision, "hidden_size": 480, "intermediate_size": 700, "initializer_factor": 4.0},
    }
    model = write_small(tmp_path, config)
    loaded = load_huggingface_clip(str(tmp_path))
    compare(model, loaded.model, SMALL_BATCH, loaded.tokenizer(["cat", "a cat"]), 95)


def test_activations_are_told_apart_by_the_comparison(small_model: CLIPModel, folder: Path) -> None:
    """The comparison would notice a wrong activation."""
    edit_json(folder / "config.json", lambda config: [config[part].update(QUICK) for part in ("text_config", "vision_config")])
    wrong = load_huggingface_clip(str(folder)).model
    with torch.no_grad(), pytest.raises(AssertionError):
        assert_same_features(wrong.encode_image(SMALL_BATCH), features(small_model.get_image_features(SMALL_BATCH)))


def test_half_precision_weights_give_a_float32_model(tmp_path: Path) -> None:
    model = random_clip(SMALL).half()
    model.save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    loaded = load_huggingface_clip(str(tmp_path))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    compare(model.float(), loaded.model, SMALL_BATCH, loaded.tokenizer(["cat", "a cat"]), 95)


def test_loading_makes_an_evaluation_model_and_leaves_the_random_generator(small_folder: Path) -> None:
    before = torch.get_rng_state()
    loaded = load_huggingface_clip(str(small_folder))
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.model.training
    assert all(tensor.device.type == "cpu" for tensor in [*loaded.model.parameters(), *loaded.model.buffers()])
    assert loaded.model.visual.preprocess_cfg == loaded.preprocess_cfg


@torch.no_grad()
@pytest.mark.parametrize("filler", [0, 7, 95, 96])
def test_what_stands_behind_end_of_text_does_not_matter(filler: int, small_model: CLIPModel, small_folder: Path) -> None:
    """open_clip pads with 0, transformers with end-of-text; neither the mask nor the pooling lets any of it in."""
    ours = load_huggingface_clip(str(small_folder)).model
    tokens = torch.tensor([[94, 1, 2, 95, 95, 95], [94, 3, 4, 5, 96, 95]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    filled = torch.full((2, 19), filler)
    filled[:, :6] = tokens.masked_fill(mask == 0, filler)
    assert_same_features(ours.encode_text(filled), features(small_model.get_text_features(tokens, attention_mask=mask)))


# Names


def test_round_trip_is_exact_in_both_directions(small_model: CLIPModel) -> None:
    cfg = open_clip_config(small_model.config.to_dict())
    ours = convert_state_dict(small_model.state_dict(), cfg)
    assert_same_tensors(to_huggingface_state_dict(ours, cfg), dict(small_model.state_dict()))
    native = {name: torch.randn_like(tensor) for name, tensor in CLIP(**cfg).state_dict().items()}
    assert_same_tensors(convert_state_dict(to_huggingface_state_dict(native, cfg), cfg), native)


def test_round_trip_keeps_the_dtype(small_model: CLIPModel) -> None:
    cfg = open_clip_config(small_model.config.to_dict())
    half = {name: tensor.to(torch.bfloat16) for name, tensor in small_model.state_dict().items()}
    assert_same_tensors(to_huggingface_state_dict(convert_state_dict(half, cfg), cfg), half)


def test_table_is_one_to_one_and_has_open_clip_shapes() -> None:
    cfg = open_clip_config(SMALL)
    pairs = tensor_pairs(cfg)
    names = [name for pair in pairs for name in pair.huggingface]
    assert len(set(names)) == len(names)
    assert {pair.open_clip: pair.open_clip_shape for pair in pairs} == {
        name: tuple(tensor.shape) for name, tensor in CLIP(**cfg).state_dict().items()
    }


def test_exported_tensors_can_be_saved_and_loaded_by_transformers(small_folder: Path, small_model: CLIPModel, tmp_path: Path) -> None:
    loaded = load_huggingface_clip(str(small_folder))
    shutil.copy(small_folder / "config.json", tmp_path)
    exported = to_huggingface_state_dict(loaded.model.state_dict(), loaded.model_cfg)
    save_file(exported, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same_tensors(dict(again.state_dict()), dict(small_model.state_dict()))


def test_position_ids_of_old_files_are_skipped(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    positions = {f"{tower}_model.embeddings.position_ids": torch.arange(9)[None] for tower in ("text", "vision")}
    save_file(tensors | positions, folder / "model.safetensors")
    assert load_huggingface_clip(str(folder)).model.logit_scale.item() == 4.25


@pytest.mark.parametrize("prefix", ["vision_model.", ""], ids=["transformers-4", "transformers-5"])
def test_vision_tower_alone_in_both_spellings(prefix: str, small_model: CLIPModel, tmp_path: Path) -> None:
    model = CLIPVisionModel(small_model.config.vision_config)
    model.load_state_dict({name.removeprefix("vision_model."): tensor for name, tensor in small_model.vision_model.state_dict().items()})
    model.save_pretrained(tmp_path)
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    spelled = {prefix + name: tensor for name, tensor in bare.items()}
    save_file(spelled, tmp_path / "model.safetensors")
    assert is_huggingface_vision(tmp_path) and not is_huggingface_clip(tmp_path)
    cfg = model_config(tmp_path)
    ours = convert_vision_state_dict(read_weights(tmp_path), cfg)
    whole_cfg = open_clip_config(small_model.config.to_dict())
    assert cfg["vision_cfg"] == whole_cfg["vision_cfg"] and "text_cfg" not in cfg
    whole = convert_state_dict(small_model.state_dict(), whole_cfg)
    assert_same_tensors(ours, {name: tensor for name, tensor in whole.items() if name.startswith("visual.") and name != "visual.proj"})
    assert_same_tensors(to_huggingface_vision_state_dict(whole, whole_cfg, prefix), spelled)


def test_vision_tower_with_its_projection(small_model: CLIPModel, tmp_path: Path) -> None:
    config = small_model.config.vision_config.to_dict() | {"projection_dim": 29}
    model = CLIPVisionModelWithProjection(type(small_model.config.vision_config)(**config))
    model.save_pretrained(tmp_path)
    ours = convert_vision_state_dict(read_weights(tmp_path), model_config(tmp_path))
    assert torch.equal(ours["visual.proj"], model.visual_projection.weight.t())


def test_number_and_size_of_the_published_vision_towers() -> None:
    """Parameters of HF's CLIPVisionModel at B/32, B/16 and L/14 (tensors 16 L + 7)."""
    published = {"B/32": (B32, 199, 87_456_000), "B/16": (B16, 199, 85_799_424), "L/14": (L14, 391, 303_179_776)}
    for config, tensors, parameters in published.values():
        pairs = [pair for pair in tensor_pairs(open_clip_config(config)) if pair.open_clip.startswith("visual.")]
        own = [pair for pair in pairs if pair.open_clip != "visual.proj"]
        assert sum(len(pair.huggingface) for pair in own) == tensors
        assert sum(torch.Size(pair.open_clip_shape).numel() for pair in own) == parameters


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1.mlp" in name], ["missing", "and 5 more", "fc1.weight"]),
        (lambda tensors: tensors.update({"classifier.weight": torch.ones(3)}), ["unexpected: classifier.weight"]),
        (lambda tensors: tensors.update({"logit_scale": torch.ones(1)}), ["wrongly shaped: logit_scale [1] instead of []"]),
        (
            lambda tensors: tensors.update({"visual_projection.weight": torch.ones(48, 29)}),
            ["visual_projection.weight [48, 29]", "[29, 48]"],
        ),
        (lambda tensors: tensors.update({"logit_scale": torch.tensor(4)}), ["not floating-point: logit_scale torch.int64"]),
    ],
    ids=["missing", "unexpected", "shape", "transposed", "integer"],
)
def test_weights_that_do_not_fit(damage: Callable[[dict[str, Tensor]], Any], words: list[str], folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    refused(lambda: load_huggingface_clip(str(folder)), str(folder), *words)


def test_export_of_weights_that_do_not_fit(small_model: CLIPModel) -> None:
    cfg = open_clip_config(SMALL)
    ours = convert_state_dict(small_model.state_dict(), cfg)
    ours["visual.class_embedding"] = torch.ones(7)
    refused(lambda: to_huggingface_state_dict(ours, cfg), "open_clip weights", "visual.class_embedding [7] instead of [48]")


@pytest.mark.parametrize("part", [{"vision_cfg": {"timm_model_name": "x"}}, {"text_cfg": {"hf_model_name": "roberta"}}])
def test_export_of_other_architectures(part: dict[str, Any]) -> None:
    refused(lambda: to_huggingface_state_dict({}, open_clip_config(SMALL) | part), "Only CLIP's own")


def refused(call: Callable[[], Any], *words: str) -> None:
    """A UserError of one sentence that holds all ``words``."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    assert all(word in message for word in words), message


# Configuration


def test_absent_keys_have_the_defaults_of_transformers() -> None:
    cfg = open_clip_config({"model_type": "clip"})
    assert cfg == open_clip_config(CLIPConfig().to_dict())
    assert cfg["vision_cfg"] == {
        "image_size": 224, "patch_size": 32, "head_width": 64, "width": 768, "layers": 12, "mlp_ratio": 4.0,
    }  # fmt: skip
    assert cfg["text_cfg"]["pool_type"] == "eos" and cfg["text_cfg"]["eos_id"] == 49407
    assert cfg["quick_gelu"] is True


def test_old_config_with_text_config_dict_and_generation_keys() -> None:
    """The shape of OpenAI's own repositories, written by transformers 4."""
    old = {
        "_commit_hash": None, "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": 768, "torch_dtype": "float32", "transformers_version": None,
        "text_config": {
            "_name_or_path": "", "bad_words_ids": None, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "pad_token_id": 1,
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "model_type": "clip_text_model", "num_beams": 1,
        },
        "text_config_dict": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2},
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
        },
        "vision_config_dict": None,
    }  # fmt: skip
    cfg = open_clip_config(old)
    assert cfg["embed_dim"] == 768 and cfg["vision_cfg"]["head_width"] == 64 and cfg["vision_cfg"]["layers"] == 24
    assert cfg["text_cfg"]["pool_type"] == "argmax" and cfg["text_cfg"]["width"] == 768


def test_every_hidden_size_is_representable() -> None:
    """open_clip computes int(width * ratio), which for the nearest ratio is one too small in a few cases."""
    cases = [(width, hidden) for width in range(3, 130, 3) for hidden in range(1, 500, 7)]
    assert any(int(width * (hidden / width)) != hidden for width, hidden in cases)
    for width, hidden in cases:
        text = SMALL_TEXT | {"hidden_size": width, "intermediate_size": hidden, "num_attention_heads": 1}
        if int(width * (hidden / width)) != hidden:
            ratio = open_clip_config(SMALL | {"text_config": text})["text_cfg"]["mlp_ratio"]
            assert int(width * ratio) == hidden


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("text_config", {"hidden_act": "relu"}, ["relu", "hidden_act"]),
        ("text_config", {"hidden_act": "quick_gelu"}, ["hidden_act differ", "quick_gelu"]),
        ("text_config", {"eos_token_id": [95, 96]}, ["eos_token_id", "[95, 96]"]),
        ("text_config", {"eos_token_id": None}, ["eos_token_id", "None"]),
        ("text_config", {"layer_norm_eps": None}, ["layer_norm_eps"]),
        ("text_config", {"num_hidden_layers": "many"}, ["num_hidden_layers"]),
        ("text_config", {"num_attention_heads": 0}, ["CLIPConfig"]),
        ("vision_config", {"num_channels": 4}, ["num_channels", "4"]),
        ("vision_config", {"image_size": [37, 41]}, ["image_size", "[37, 41]"]),
        ("vision_config", {"num_attention_heads": 5}, ["48", "5"]),
        (None, {"projection_dim": None}, ["projection_dim"]),
        (None, {"text_config": 3}, ["config.json"]),
    ],
)
def test_configurations_that_cannot_be_converted(part: str | None, change: dict[str, Any], words: list[str], folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: (config[part] if part else config).update(change))
    refused(lambda: load_huggingface_clip(str(folder)), str(folder), *words)


# Files


def test_sharded_weights(small_model: CLIPModel, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    small_model.save_pretrained(folder, max_shard_size="60KB")
    shards = find_weights(folder)
    assert len(shards) > 2
    assert_same_tensors(dict(load_huggingface_clip(str(folder)).model.state_dict()), our_tensors(small_model))
    shards[1].unlink()
    refused(lambda: load_huggingface_clip(str(folder)), f"1 of the {len(shards)} shards", shards[1].name)


def our_tensors(model: CLIPModel) -> dict[str, Tensor]:
    return convert_state_dict(model.state_dict(), open_clip_config(model.config.to_dict()))


def test_index_without_weight_map(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')
    refused(lambda: find_weights(folder), "weight_map", "index.json")


def test_pickled_weights(small_model: CLIPModel, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(small_model.state_dict(), folder / "pytorch_model.bin")
    assert_same_tensors(dict(load_huggingface_clip(str(folder)).model.state_dict()), our_tensors(small_model))


def test_safetensors_come_before_pickles(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert find_weights(folder) == [folder / "model.safetensors"]


def test_pickle_that_would_execute_code(small_model: CLIPModel, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(small_model, folder / "pytorch_model.bin")
    refused(lambda: load_huggingface_clip(str(folder)), "pytorch_model.bin", "execute code", "transformers.models.clip")


@pytest.mark.parametrize("kept", [0, 100, -1000])
def test_damaged_pickle(kept: int, small_model: CLIPModel, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(small_model.state_dict(), folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:kept])
    refused(lambda: load_huggingface_clip(str(folder)), "pytorch_model.bin", "damaged")


def test_pickle_of_something_else(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save([1, 2], folder / "pytorch_model.bin")
    refused(lambda: load_huggingface_clip(str(folder)), "pytorch_model.bin", "state dict")


def test_truncated_safetensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(lambda: load_huggingface_clip(str(folder)), "model.safetensors", "truncated")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(lambda: load_huggingface_clip(str(folder)), str(folder), "no weights", "model.safetensors")


def test_other_model_type(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.update(model_type="siglip"))
    refused(lambda: load_huggingface_clip(str(folder)), str(folder), "model_type")


def test_no_config(tmp_path: Path) -> None:
    assert not is_huggingface_clip(tmp_path) and not is_huggingface_vision(tmp_path)
    refused(lambda: load_huggingface_clip(str(tmp_path)), str(tmp_path), "config.json")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_config(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    refused(lambda: load_huggingface_clip(str(folder)), "config.json", "JSON")


# The hub


class Hub:
    """Stands in for the hub: a repository's files, or the error that fetching it gives."""

    def __init__(self, files: list[str], folder: Path, error: Exception | None = None) -> None:
        self.files, self.folder, self.error = files, folder, error
        self.fetched: list[str] = []

    def __call__(self, repository: str, allow_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects

        if self.error:
            raise self.error
        self.fetched += filter_repo_objects(self.files, allow_patterns=allow_patterns)
        for name in self.fetched:
            (self.folder / name).touch()
        return str(self.folder)


def test_hub_id_fetches_only_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "vocab.json"]
    hub = Hub([*needed, "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md", "modeling.py"], tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert resolve("openai/clip-vit-base-patch32") == tmp_path
    assert sorted(hub.fetched) == needed


def test_hub_id_fetches_pickles_only_where_there_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(["config.json", "pytorch_model.bin", "training_args.bin"], tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    resolve("org/name")
    assert set(hub.fetched) == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "linearized_adapter_model.safetensors"])
def test_hub_id_of_a_lora_fetches_it_and_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    hub = Hub(["adapter_config.json", weights, "pytorch_model.bin", "README.md"], tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    resolve("org/name")
    assert set(hub.fetched) == {"adapter_config.json", weights}


def hub_errors() -> list[Any]:
    import httpx
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
    return [
        pytest.param(LocalEntryNotFoundError("No connection.\nCheck it."), "No connection", id="no network"),
        pytest.param(OfflineModeIsEnabled("Offline mode is enabled."), "Offline mode", id="offline"),
        pytest.param(RepositoryNotFoundError("404", response=response), "no public Hugging Face repository", id="unknown"),
        pytest.param(GatedRepoError("403", response=response), "gated", id="gated"),
        pytest.param(OSError(28, "No space left on device"), "No space left", id="full disk"),
    ]


@pytest.mark.parametrize(("error", "words"), hub_errors())
def test_hub_that_does_not_answer(error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub([], tmp_path, error))
    refused(lambda: resolve("org/name"), "'org/name'", words, "local folder")


def test_names_that_are_neither_folder_nor_hub_id(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(lambda: resolve(str(tmp_path / "file")), "is a file")
    refused(lambda: resolve(str(tmp_path / "absent")), "No such model folder")
    refused(lambda: resolve("absent"), "No such model folder", "ORG/NAME")


# Images


def test_preprocessing_without_a_file_is_openai_clips_at_the_models_size(folder: Path) -> None:
    cfg = preprocess_config(folder)
    assert PreprocessCfg(**cfg) == PreprocessCfg(size=37)


@pytest.mark.parametrize("old", [True, False], ids=["numbers", "objects"])
def test_preprocessor_config(old: bool, folder: Path) -> None:
    written = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2, "do_resize": True}
    sizes: dict[str, Any] = (
        {"size": 37, "crop_size": 37} if old else {"size": {"shortest_edge": 37}, "crop_size": {"height": 37, "width": 37}}
    )
    edit_json(folder / "preprocessor_config.json", lambda config: config.update(written | sizes))
    assert PreprocessCfg(**preprocess_config(folder)) == PreprocessCfg(
        size=37, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear", resize_mode="shortest"
    )


def test_preprocessor_that_squashes(folder: Path) -> None:
    squash = {"size": {"height": 37, "width": 37}, "do_center_crop": False, "crop_size": None}
    edit_json(folder / "preprocessor_config.json", lambda config: config.update(squash))
    assert preprocess_config(folder)["resize_mode"] == "squash"


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("whole_processor", [True, False], ids=["processor_config", "preprocessor_config"])
def test_pixels_equal_those_of_the_image_processor(normalize: bool, whole_processor: bool, folder: Path) -> None:
    """An image of the model's size, so that the libraries' different rounding after a resize plays no part."""
    processor = CLIPImageProcessor(
        size={"shortest_edge": 37}, crop_size={"height": 37, "width": 37}, image_mean=[0.5, 0.4, 0.3], do_normalize=normalize
    )
    (CLIPProcessor(processor, small_tokenizer()) if whole_processor else processor).save_pretrained(folder)
    pixels = torch.randint(256, (37, 37, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    image = Image.fromarray(pixels)
    transform = image_transform_v2(PreprocessCfg(**load_huggingface_clip(str(folder)).preprocess_cfg), is_train=False)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert (transform(image) - theirs).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"resample": 1}, "resample 1"),
        ({"do_resize": False}, "do_resize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"size": 64}, "shortest_edge 64"),
        ({"crop_size": {"height": 37, "width": 30}}, "crop width 30"),
        ({"size": {"longest_edge": 37}}, "longest_edge"),
        ({"size": {"shortest_edge": 37}, "do_center_crop": False}, "37 x 37"),
        ({"image_mean": [0.5]}, "image_mean"),
    ],
)
def test_preprocessing_that_open_clip_does_not_have(change: dict[str, Any], word: str, folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", lambda config: config.update(change))
    refused(lambda: load_huggingface_clip(str(folder)), "preprocessor_config.json", word)


# Prompts


def standard_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer as transformers has it, made of the merges that open_clip carries."""
    standard = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in standard.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(standard.bpe_ranks))


def test_standard_vocabulary_uses_open_clips_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    theirs = standard_tokenizer()
    theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path, model_config(tmp_path))
    assert isinstance(ours, SimpleTokenizer)
    prompts = ["a photo of a cat.", "It's 12 o'clock!", "naïve café"]
    for row, ids in zip(ours(prompts), theirs(prompts)["input_ids"], strict=True):
        assert row.tolist() == ids + [0] * (77 - len(ids))


def test_tokenizer_files_with_other_tokens_are_used(tmp_path: Path) -> None:
    standard = standard_tokenizer()
    standard.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')

    def swap(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]

    edit_json(tmp_path / "tokenizer.json", swap)
    ours = load_tokenizer(tmp_path, model_config(tmp_path))
    assert isinstance(ours, HFTokenizer)
    assert ours(["cat"])[0, 1] == standard("dog")["input_ids"][1]


def test_own_tokenizer_cuts_long_prompts_and_ends_them(small_folder: Path) -> None:
    tokenizer = load_tokenizer(small_folder, model_config(small_folder))
    assert isinstance(tokenizer, HFTokenizer)
    tokens = tokenizer(["cat", "x " * 40])
    assert tokens[0].tolist() == [94, 53, *[95] * 17]
    assert tokens[1, -1] == 95 and tokens[1, 0] == 94


def test_own_tokenizer_never_pads_left_or_with_a_greater_id(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(pad_token="dog</w>", padding_side="left"))
    tokens = load_tokenizer(folder, model_config(folder))(["cat"])
    assert tokens[0].tolist() == [94, 53, *[95] * 17]


def test_own_vocabulary_without_tokenizer_files(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(lambda: load_huggingface_clip(str(folder)), str(folder), "97", "tokenizer.json")


def test_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    refused(lambda: load_huggingface_clip(str(folder)), "Cannot read the tokenizer", str(folder))


def test_tokenizer_with_more_tokens_than_the_model(folder: Path) -> None:
    cfg = model_config(folder)
    cfg["text_cfg"]["vocab_size"] = 40
    refused(lambda: load_tokenizer(folder, cfg), "57 tokens", "40")


def test_tokenizer_that_ends_with_another_token_than_the_model_pools_at(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config["text_config"].update(eos_token_id=7))
    refused(lambda: load_huggingface_clip(str(folder)), "pools its text at token 7", "95")
