"""Checkpoints: a round trip for every tuning, and one test per way in which a file or a flag can be wrong."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from models.checkpoint import CheckpointHeader, base_sha256, load_checkpoint, make_header, read_header, save_checkpoint
from models.encoder import Encoder
from models.loading import load_encoder
from models.tensors import read_metadata, read_safetensors, write_safetensors
from models.tunings import TUNING_NAMES, TuningOptions, apply_tuning, trained_parameters
from models.zoo import TINY_FOLDER, canonical_name
from tests.models import small

CLASSES = ("cat", "dog", 'a "quoted" züri-tram')
OPTIONS = TuningOptions(rank=2, lora_scale=0.5, lora_mlp=True, train_blocks=2, reduction=8, adapter_ratio=0.3, probe_init="text", seed=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.write_local_dir(tmp_path_factory.mktemp("base"))


def _trained(model: str, tuning: str, options: TuningOptions = OPTIONS) -> tuple[Encoder, CheckpointHeader]:
    """A tuned encoder whose parameters have moved, and its header."""
    encoder = load_encoder(model)
    base = base_sha256(encoder)
    text = encoder.encode_text(encoder.tokenize(CLASSES))
    apply_tuning(encoder, tuning, options, classnames=CLASSES, text_embeddings=text)
    generator = torch.Generator().manual_seed(3)
    for parameter in trained_parameters(encoder).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    header = make_header(
        encoder,
        tuning,
        options,
        base,
        task="EuroSAT",
        split="train",
        classnames=CLASSES,
        templates=("a photo of a {c}.",),
        settings={"lr": 1e-3, "optimizer": "sgd", "betas": [0.9, 0.99]},
    )
    return encoder, replace(header, epoch=3, val_accuracy=0.1 + 0.2)


def _saved(folder: Path, model: str, tuning: str = "lora", options: TuningOptions = OPTIONS) -> Path:
    encoder, header = _trained(model, tuning, options)
    path = folder / f"{tuning}.safetensors"
    save_checkpoint(path, encoder, header)
    return path


@pytest.mark.parametrize("tuning", TUNING_NAMES)
def test_what_was_saved_is_what_is_loaded(tuning: str, model: str, tmp_path: Path) -> None:
    encoder, header = _trained(model, tuning)
    path = tmp_path / "new" / f"{tuning}.safetensors"
    save_checkpoint(path, encoder, header)
    loaded, read = load_checkpoint(path)
    assert read == header == read_header(path)
    assert read.classnames == CLASSES and read.val_accuracy == 0.1 + 0.2 and read.settings["betas"] == [0.9, 0.99]
    for left, right in zip(small.embeddings(encoder), small.embeddings(loaded), strict=True):
        assert torch.equal(left, right)
    if tuning == "probe":
        assert torch.equal(encoder.probe(small.embeddings(encoder)[0]), loaded.probe(small.embeddings(loaded)[0]))
    assert trained_parameters(loaded).keys() == trained_parameters(encoder).keys()


@pytest.mark.parametrize("tuning", TUNING_NAMES)
def test_only_what_trains_is_stored(tuning: str, model: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, model, tuning)
    stored = sum(tensor.numel() for tensor in read_safetensors(path)[0].values())
    whole = sum(parameter.numel() for parameter in load_encoder(model).parameters())
    assert stored == whole if tuning == "full" else stored < 0.05 * whole
    assert path.stat().st_size < 4 * stored + 64 * 1024


def test_a_header_holds_what_the_tuning_reads_and_nothing_else(model: str, tmp_path: Path) -> None:
    assert read_header(_saved(tmp_path, model, "lora")).options == {"rank": 2, "lora_scale": 0.5, "lora_mlp": True}
    assert read_header(_saved(tmp_path, model, "bias")).options == {"train_blocks": 2}
    assert read_header(_saved(tmp_path, model, "full")).options == {}
    header = read_header(_saved(tmp_path, model, "adapter"))
    assert header.options == {"reduction": 8, "adapter_ratio": 0.3} and header.seed == 7
    assert {"python", "torch", "open_clip_torch"} <= header.versions.keys()
    assert set(read_metadata(tmp_path / "adapter.safetensors")) == set(header.to_metadata())


def test_a_short_name_is_recorded_whichever_way_the_model_was_named() -> None:
    assert canonical_name(f"local-dir:{TINY_FOLDER}") == canonical_name(str(TINY_FOLDER)) == canonical_name("tiny") == "tiny"
    assert canonical_name("ViT-B-32-quickgelu/openai") == "clip"
    assert canonical_name("RN50-quickgelu/openai") == "RN50-quickgelu/openai"


def test_flags_that_repeat_the_header_are_welcome(model: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, model)
    given = {"rank": 2, "lora_mlp": True, "lora_scale": 0.5, "train_blocks": None}
    assert load_checkpoint(path, model=model, tuning="lora", given=given)[1] == read_header(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"given": {"rank": 8}}, r"^--rank 8 contradicts '.*lora.safetensors', which was trained with rank 2; leave the flag out\.$"),
        ({"given": {"train_blocks": 12}}, r"^--train-blocks has no meaning for '.*', which was trained with 'lora'; leave the flag out\.$"),
        ({"tuning": "bias"}, r"^The tuning 'bias' contradicts '.*', which was trained with 'lora'; leave the flag out\.$"),
        ({"model": "clip"}, r"^The model 'clip' contradicts '.*', which was trained from 'local-dir:.*'; leave the flag out\.$"),
        ({"model": "klip"}, "did you mean 'clip'"),
    ],
)
def test_flags_that_contradict_the_header_are_refused(flags: dict[str, object], message: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_checkpoint(_saved(tmp_path, model), **flags)  # type: ignore[arg-type]


def test_other_base_weights_are_refused(tmp_path: Path) -> None:
    model = small.write_local_dir(tmp_path / "base")
    path = _saved(tmp_path, model)
    small.write_local_dir(tmp_path / "base", seed=1)
    with pytest.raises(UserError, match=r"^The base weights of 'local-dir:.*' are not those that '.*lora.safetensors' was tuned from\.$"):
        load_checkpoint(path)


def test_the_base_is_hashed_before_the_tuning(model: str) -> None:
    encoder = load_encoder(model)
    assert base_sha256(encoder) == base_sha256(load_encoder(model))
    apply_tuning(encoder, "bias", OPTIONS)
    with pytest.raises(ValueError, match="before"):
        base_sha256(encoder)


def _edited(path: Path, edit: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> Path:
    tensors, metadata = read_safetensors(path)
    edit(tensors, metadata)
    write_safetensors(path, tensors, metadata)
    return path


def _drop(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    del tensors["probe.bias"]


def _add(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    tensors["probe.extra"] = torch.zeros(1)
    tensors["probe.more"] = torch.zeros(1)


def _widen(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    tensors["probe.weight"] = torch.zeros(3, 512)


def _no_epoch(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    del metadata["epoch"]


def _broken_json(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["options"] = "{rank: 4"


def _unknown_option(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["options"] = '{"ranks": 4}'


def _no_classes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["classnames"] = "[]"


def _unknown_tuning(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["tuning"] = "prompt"


def _newer(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["format"] = "clipscope-checkpoint/2"


def _embeddings_file(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata["format"] = "clipscope-embeddings/1"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_drop, r"does not fit the model: it lacks 'probe.bias'\.$"),
        (_add, r"does not fit the model, which has no place for 'probe.(extra|more)' and 1 more\.$"),
        (_widen, r"does not fit the model: 'probe.weight' is 3x512, not 3x32\.$"),
        (_no_epoch, r"^The header of '.*' is damaged: KeyError 'epoch'\.$"),
        (_broken_json, r"^The header of '.*' is damaged: JSONDecodeError"),
        (_unknown_option, r"^The header of '.*' is damaged: .*ranks"),
        (_no_classes, r"^The header of '.*' is damaged: a probe without class names\.$"),
        (_unknown_tuning, r"^Unknown tuning 'prompt'; did you mean 'probe'"),
        (_newer, r"is of the format 'clipscope-checkpoint/2'; a checkpoint of the format 'clipscope-checkpoint/1' is expected\.$"),
        (_embeddings_file, r"is of the format 'clipscope-embeddings/1'; a checkpoint"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    edit: Callable[[dict[str, torch.Tensor], dict[str, str]], None], message: str, model: str, tmp_path: Path
) -> None:
    path = _edited(_saved(tmp_path, model, "probe"), edit)
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


def test_a_checkpoint_of_another_rank_is_told_by_its_first_tensor(model: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, model)
    _edited(path, lambda tensors, metadata: metadata.update(options='{"rank": 4, "lora_scale": 0.5, "lora_mlp": true}'))
    with pytest.raises(UserError, match=r"lora_A.q' is 2x32, not 4x32\.$"):
        load_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(model: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, model)
    whole = path.read_bytes()
    for length in (len(whole) - 100, 200, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="truncated or damaged"):
            load_checkpoint(path)


def test_a_flipped_bit_is_noticed(model: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, model)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged or was edited"):
        load_checkpoint(path)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("none.safetensors", "none.pt"):
        with pytest.raises(UserError, match=rf"^No such file: '.*{name}'\.$"):
            load_checkpoint(tmp_path / name, model="tiny")
        with pytest.raises(UserError, match=r"^No such file"):
            read_header(tmp_path / name)


# Files that clipscope did not write


def _moved_weights(model: str) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.01 for name, tensor in load_encoder(model).model.state_dict().items()}


@pytest.mark.parametrize("form", ["x.pt", "x.pth", "x.bin", "wrapped.pt", "parallel.pt", "decoder.pt", "x.safetensors"])
def test_whole_weights_from_elsewhere(form: str, model: str, tmp_path: Path) -> None:
    weights, path = _moved_weights(model), tmp_path / form
    if form == "x.safetensors":
        save_file(weights, path)
    elif form == "wrapped.pt":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    elif form == "parallel.pt":
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    elif form == "decoder.pt":
        torch.save({**weights, "text_decoder.ln_final.bias": torch.zeros(3)}, path)
    else:
        torch.save(weights, path)
    encoder, header = load_checkpoint(path, model=model)
    assert (header.tuning, header.model, header.options) == ("full", model, {})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.model.state_dict().items())
    assert trained_parameters(encoder)


def test_weights_from_elsewhere_need_a_model_and_hold_no_tuning(model: str, tmp_path: Path) -> None:
    torch.save(_moved_weights(model), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"does not say which model it belongs to; name it, e\.g\. --model-name clip"):
        load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(UserError, match="not the tuning 'lora'"):
        load_checkpoint(tmp_path / "x.pt", model=model, tuning="lora")
    with pytest.raises(UserError, match="was not written by clipscope"):
        read_header(tmp_path / "x.pt")
    save_file(_moved_weights(model), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="was not written by clipscope"):
        read_header(tmp_path / "x.safetensors")


def test_weights_of_another_model_are_refused(model: str, tmp_path: Path) -> None:
    weights = _moved_weights(model)
    del weights["visual.proj"]
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"it lacks 'visual.proj'\.$"):
        load_checkpoint(tmp_path / "x.pt", model=model)


class _Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["torch", "pickle", "module"])
def test_pickles_with_code_are_refused_and_not_run(form: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "x.pt", tmp_path / "ran"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"weights": _Code(marker)}))
    else:
        torch.save(torch.nn.Linear(2, 2) if form == "module" else {"weights": _Code(marker)}, path)
    with pytest.raises(UserError, match=r"was not loaded: reading it would run code stored in it; save it as safetensors\.$"):
        load_checkpoint(path, model="tiny")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"PK\x03\x04 but no more"])
def test_damaged_pickles_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not a readable PyTorch file; it is truncated or damaged\.$"):
        load_checkpoint(path, model="tiny")


def test_a_pickle_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"accuracy": 0.5}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        load_checkpoint(tmp_path / "x.pt", model="tiny")
