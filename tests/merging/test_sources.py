"""Every kind of model that can be named, against the code that builds it; and what is said of those that cannot be merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from merging.inputs import open_inputs
from merging.sources import open_all, open_weights
from merging.sources.naming import to_huggingface, to_open_clip
from merging.sources.source import default_name, named, unique
from merging.weights import TensorWeights, Weights
from models.checkpoint import base_sha256, load_checkpoint, make_header, save_checkpoint
from models.huggingface import convert_state_dict, open_clip_config, to_huggingface_state_dict
from models.loading import load_encoder
from models.lora import folded_state_dict
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning, trained_parameters
from tests.helpers import write_model
from tests.merging import hugging_face as hf

TUNINGS = ("full", "lora", "bias", "attention")


def assert_holds(weights: Weights, expected: hf.Tensors) -> None:
    """The same names and, to the bit, the same tensors, whole and in parts."""
    assert weights.specs.keys() == expected.keys()
    for name, tensor in expected.items():
        found = weights.read(name)
        assert weights.specs[name].shape == found.shape
        assert weights.specs[name].dtype == found.dtype
        assert torch.equal(found, tensor), name
        middle = slice(tensor.numel() // 3, tensor.numel() - tensor.numel() // 4)
        assert torch.equal(weights.read(name, middle), tensor.reshape(-1)[middle]), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the zoo's kind, and checkpoints of it, one of every tuning."""
    folder = tmp_path_factory.mktemp("sources")
    base = write_model(folder / "base")
    for number, tuning in enumerate((*TUNINGS, "adapter", "probe")):
        save_tuned(folder / f"{tuning}.safetensors", str(base), tuning, number)
    return folder


def save_tuned(path: Path, base: str, tuning: str, seed: int) -> None:
    """A checkpoint whose trained parameters were moved at random."""
    encoder, options = load_encoder(base), TuningOptions(seed=seed, rank=3, train_blocks=1)
    header = make_header(encoder, tuning, options, base_sha256(encoder), classnames=["a", "b"])
    apply_tuning(encoder, tuning, options, classnames=["a", "b"])
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained_parameters(encoder).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_checkpoint(path, encoder, header)


def test_a_model_of_the_zoo_is_its_state_dict() -> None:
    source = open_weights("tiny")
    assert source.name == "tiny"
    assert_holds(source, dict(load_encoder("tiny").model.state_dict()))


@pytest.mark.parametrize("with_base", [True, False], ids=["over the base", "alone"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_checkpoint_is_the_encoder_that_it_loads_as(folder: Path, tuning: str, with_base: bool) -> None:
    path = folder / f"{tuning}.safetensors"
    source = open_weights(str(path), open_weights(str(folder / "base")) if with_base else None)
    assert source.name == tuning
    assert_holds(source, folded_state_dict(load_checkpoint(path)[0].model))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_checkpoint_goes_under_the_names_of_its_base_in_hugging_faces_form(folder: Path, tmp_path: Path, tuning: str) -> None:
    encoder = load_encoder(str(folder / "base"))
    config = json.loads((folder / "base" / "open_clip_config.json").read_text())["model_cfg"]
    base = to_huggingface_state_dict(encoder.model.state_dict(), config)
    path = folder / f"{tuning}.safetensors"
    source = open_weights(str(path), open_weights(hf.write(tmp_path / "hf", base)))
    assert source.remarks == ()
    assert_holds(source, to_huggingface_state_dict(folded_state_dict(load_checkpoint(path)[0].model), config))
    other = hf.write(tmp_path / "other", hf.tuned(base, 0))
    with pytest.raises(UserError, match=r"full.safetensors' was tuned from '.*base' \(sha256 .*\), and the base 'other' has other weights"):
        open_weights(str(folder / "full.safetensors"), open_weights(other))
    alone = open_weights(str(path), open_weights(hf.write(tmp_path / "vision", hf.vision(base))))
    assert "'vision' has no text tower, so whether" in alone.remarks[0]


@pytest.mark.parametrize("tuning", ["adapter", "probe"])
def test_a_tuning_of_the_outputs_cannot_be_merged(folder: Path, tuning: str) -> None:
    with pytest.raises(UserError, match=f"holds the tuning '{tuning}', .*; only full, lora, l-lora, bias, attention can be merged"):
        open_weights(str(folder / f"{tuning}.safetensors"), open_weights(str(folder / "base")))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_checkpoint_of_another_base_is_refused(folder: Path, tmp_path: Path, tuning: str) -> None:
    other = open_weights(str(write_model(tmp_path / "other", seed=1)))
    with pytest.raises(UserError, match=f"{tuning}.safetensors' was tuned from '.*base' .* and the base 'other' has other weights"):
        open_weights(str(folder / f"{tuning}.safetensors"), other)


def test_a_checkpoint_with_a_flipped_bit_is_refused(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "full.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "full.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"full.safetensors' is damaged or was edited"):
        open_weights(str(tmp_path / "full.safetensors"))


def test_without_a_base_checkpoints_have_their_own(folder: Path) -> None:
    base, (bias, lora) = open_all(None, [str(folder / "bias.safetensors"), f"x={folder / 'lora.safetensors'}"])
    assert base is not None
    assert base.header is not None
    assert base.header.base_sha256 == base_sha256(load_encoder(str(folder / "base")))
    assert [bias.name, lora.name] == ["bias", "x"]


@pytest.mark.parametrize("of_base", [4, 5])
@pytest.mark.parametrize("of_model", [4, 5])
@pytest.mark.parametrize("position_ids", [True, False], ids=["with ids", "without"])
def test_both_spellings_of_a_vision_tower_go_under_the_base_s(tmp_path: Path, of_base: int, of_model: int, position_ids: bool) -> None:
    base, model = hf.clip(0), hf.tuned(hf.clip(0), 1)
    like = open_weights(hf.write(tmp_path / "base", hf.vision(base, of_base)))
    source = open_weights(hf.write(tmp_path / "model", hf.vision(model, of_model, position_ids)), like)
    expected = hf.vision(model, of_base)
    assert expected.keys() == {name for name, spec in source.specs.items() if spec.dtype.is_floating_point}
    assert all(torch.equal(source.read(name), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("spelling", [4, 5])
def test_a_vision_tower_is_merged_into_a_whole_clip(tmp_path: Path, spelling: int) -> None:
    base = hf.clip(0)
    models = [hf.write(tmp_path / str(seed), hf.vision(hf.tuned(base, seed), spelling, position_ids=True)) for seed in (1, 2)]
    inputs = open_inputs(hf.write(tmp_path / "base", base), models)
    assert set(inputs.pool.merged) == set(hf.vision(base))
    assert inputs.remarks == ()


def test_the_table_of_names_is_that_of_the_conversion() -> None:
    tensors = hf.clip(3)
    weights = TensorWeights("x", tensors)
    config = open_clip_config(hf.CONFIG)
    assert_holds(to_open_clip(weights), convert_state_dict(tensors, config))
    assert_holds(to_huggingface(to_open_clip(weights)), tensors)
    tower = hf.vision(tensors, spelling=5)
    expected = {
        name: tensor for name, tensor in convert_state_dict(tensors, config).items() if name.startswith("visual.") and name != "visual.proj"
    }
    assert_holds(to_open_clip(TensorWeights("x", tower)), expected)
    projected = hf.vision(tensors) | {"visual_projection.weight": tensors["visual_projection.weight"]}
    assert "visual.proj" in to_open_clip(TensorWeights("x", projected)).specs


def test_hugging_face_models_go_under_the_names_of_open_clip_and_back(folder: Path, tmp_path: Path) -> None:
    base = load_encoder(str(folder / "base")).model.state_dict()
    config = json.loads((folder / "base" / "open_clip_config.json").read_text())["model_cfg"]
    tower = hf.vision(hf.tuned(to_huggingface_state_dict(base, config), 1), spelling=5)
    inputs = open_inputs(str(folder / "base"), [hf.write(tmp_path / "tower", tower)])
    assert set(inputs.pool.merged) == {name for name in base if name.startswith("visual.") and name != "visual.proj"}
    back = to_huggingface(inputs.models[0].weights)
    assert all(torch.equal(back.read(f"vision_model.{name}"), tensor) for name, tensor in tower.items())


def test_other_towers_have_no_other_names() -> None:
    timm = TensorWeights("siglip", {"visual.trunk.blocks.0.w": torch.ones(2)})
    hugging_face = TensorWeights("x", hf.clip(0))
    for weights in (timm, TensorWeights("odd", {**hf.clip(0), "vision_model.post_layernorm.bias": torch.ones(3)})):
        with pytest.raises(UserError, match=f"'{weights.name}' cannot go under the base's names: it has not CLIP's plain transformers"):
            (to_huggingface if weights is timm else to_open_clip)(weights)
    assert to_open_clip(hugging_face).specs


def test_shards_are_one_model(tmp_path: Path) -> None:
    tensors = hf.clip(0)
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    for spelled in (tmp_path, index):
        assert_holds(open_weights(str(spelled)), tensors)
    save_file({names[0]: tensors[names[0]]}, tmp_path / "model-2-of-2.safetensors")
    with pytest.raises(UserError, match=f"both hold '{names[0]}'"):
        open_weights(str(tmp_path))
    (tmp_path / "model-2-of-2.safetensors").unlink()
    for spelled in (tmp_path, index):
        with pytest.raises(UserError, match=r"model-2-of-2.safetensors"):
            open_weights(str(spelled))
    index.write_text("[]")
    with pytest.raises(UserError, match="names no shards"):
        open_weights(str(index))


def test_a_pickled_hugging_face_model_is_read_without_running_code(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(hf.clip(0), tmp_path / "pytorch_model.bin")
    assert_holds(open_weights(str(tmp_path)), hf.clip(0))


def test_what_is_not_there_or_no_model_is_told(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    told = {
        "absent.safetensors": "No such file: 'absent.safetensors'",
        "runs/absent.safetensors": "No such file: 'runs/absent.safetensors'",
        str(tmp_path / "x.pt"): "is a PyTorch pickle, not a safetensors file",
        str(tmp_path): "There are no weights in",
        "tyni": "Unknown model 'tyni'; did you mean 'tiny'",
        "./absent": "The model folder './absent' does not exist",
    }
    for spelled, words in told.items():
        with pytest.raises(UserError, match=words):
            open_weights(spelled)


def test_names_are_typed_or_follow_from_the_place() -> None:
    assert default_name("runs/sun397.safetensors") == "sun397"
    assert default_name("runs/sun397/model.safetensors") == "sun397"
    assert default_name("tanganke/clip-vit-base-patch32_dtd") == "clip-vit-base-patch32_dtd"
    assert default_name("model.safetensors") == "model"
    assert named("dtd=runs/x.safetensors") == ("dtd", "runs/x.safetensors")
    assert named("runs/a=b.safetensors") == ("a=b", "runs/a=b.safetensors")


def test_a_path_with_an_equals_sign_is_a_path_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("lr=3.safetensors") == ("lr", "3.safetensors")
    Path("lr=3.safetensors").touch()
    assert named("lr=3.safetensors") == ("lr=3", "lr=3.safetensors")


def test_no_two_models_have_one_name() -> None:
    def names(*arguments: str) -> list[str]:
        return [name for name, _ in unique([named(argument) for argument in arguments], arguments)]

    assert names("a/x.safetensors", "b/x.safetensors", "c/x.safetensors") == ["x", "x-2", "x-3"]
    assert names("a/x.safetensors", "x=b.safetensors") == ["x-2", "x"]
    with pytest.raises(UserError, match="Two models are named 'x'"):
        names("x=a", "x=b")


def test_towers_and_patterns_choose(tmp_path: Path) -> None:
    base = hf.clip(0)
    paths = [hf.write(tmp_path / str(seed), hf.tuned(base, seed)) for seed in (1, 2)]
    like = hf.write(tmp_path / "base", base)
    vision = {name for name in base if name.startswith("vision_model.")}
    assert set(open_inputs(like, paths).pool.merged) == vision | {"visual_projection.weight"}
    assert set(open_inputs(like, paths, towers="both").pool.merged) == set(base)
    assert set(open_inputs(like, paths, only=["*.mlp.*"]).pool.merged) == {name for name in vision if ".mlp." in name}
    assert set(open_inputs(like, paths, "both", ["logit_*", "*fc1.bias"]).pool.merged) == {
        "logit_scale",
        *(name for name in base if name.endswith("fc1.bias")),
    }


def test_a_projection_that_no_model_has_tuned_is_left_out(tmp_path: Path) -> None:
    base = hf.clip(0)
    tuned = [{**hf.tuned(base, seed), "visual_projection.weight": base["visual_projection.weight"]} for seed in (1, 2)]
    paths = [hf.write(tmp_path / str(number), tensors) for number, tensors in enumerate(tuned)]
    for like in (hf.write(tmp_path / "base", base), None):
        assert set(open_inputs(like, paths).pool.merged) == {name for name in base if name.startswith("vision_model.")}


def test_any_files_of_one_naming_can_be_merged(tmp_path: Path) -> None:
    for name in "abc":
        save_file({"w": torch.randn(3, 2), "steps": torch.tensor(3)}, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert open_inputs(files[0], files[1:]).pool.merged == ("w",)
    with pytest.raises(UserError, match=r"--towers both is for CLIPs, and 'a' is none; --only PATTERN"):
        open_inputs(files[0], files[1:], towers="both")


def test_a_tuned_text_tower_that_is_left_out_is_told(folder: Path) -> None:
    inputs = open_inputs(str(folder / "base"), [str(folder / "full.safetensors"), str(folder / "bias.safetensors")])
    assert inputs.remarks == ("The text tower of 'full', 'bias' was tuned too; it is left out, --towers both merges it.",)
    assert open_inputs(str(folder / "base"), [str(folder / "full.safetensors")], "both").remarks == ()
