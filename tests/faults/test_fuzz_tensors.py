"""Damaged files of tensors: a value that was given is the one that was written, to the bit, wherever a checksum is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datasets.retrieval.collection import Collection
from datasets.samples import RawSamples
from engine.embeddings import Embeddings, describe, load_embeddings, save_embeddings
from engine.embeddings import read_metadata as read_description
from engine.state import Progress, load_state, save_state
from fewshot.feature_files import Rows, keep, kept, path_of
from inversion.features import _kept
from inversion.optimise import Inverted
from inversion.pseudo_tokens import FORMAT, HYPERPARAMETERS, count_done, indices_done, load_pseudo_tokens, save_shard
from merging.coefficients import Columns
from merging.learnt import Learnt
from merging.learnt import load as load_learnt
from merging.weights import TensorWeights, make_pool
from models.checkpoint import _read_pickle, load_checkpoint, make_header, read_header, save_checkpoint
from models.checkpoint import base_sha256 as hash_of_base
from models.encoder import Encoder
from models.huggingface.files import read_weights
from models.loading import load_encoder
from models.slip.files import read_tensors
from models.tensors import read_metadata, read_safetensors, write_safetensors
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning
from tests.faults.damage import Reader, attack, files_in
from tests.faults.scale import times

METADATA = {"name": "a", "numbers": "[1, 2]"}


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {"a.w": torch.randn(4, 3, generator=generator), "a.b": torch.randn(4, generator=generator).half()}
    return drawn | {"count": torch.tensor(7), "none": torch.zeros(0, 2)}


def flat(value: Any) -> Any:
    """``value`` as plain Python, so that two can be compared to the bit."""
    if isinstance(value, torch.Tensor):
        return flat(value.detach().numpy())
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes()
    if isinstance(value, dict):
        return {key: flat(each) for key, each in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: flat(getattr(value, each.name)) for each in fields(value)}
    return [flat(each) for each in value] if isinstance(value, list | tuple) else value


def exactly(folder: Path, read: Callable[[Path], Any], **more: Any) -> Reader:
    """A reader that gives what it gives of the whole files or refuses."""
    whole = flat(read(folder))

    def check(value: Any) -> None:
        assert flat(value) == whole

    return Reader(files_in(folder), read, check, **more)


def roughly(folder: Path, read: Callable[[Path], Any], check: Callable[[Any], None] = lambda _: None, **more: Any) -> Reader:
    """A reader of what has no checksum."""
    return Reader(files_in(folder), read, check, **more)


def none_or_exactly(folder: Path, read: Callable[[Path], Any]) -> Reader:
    """A cache: what is damaged is not there."""
    whole = flat(read(folder))

    def check(value: Any) -> None:
        assert value is None or flat(value) == whole

    return Reader(files_in(folder), read, check)


# --- one function for each reader ----------------------------------------------------------------------------------


def plain(folder: Path) -> Reader:
    write_safetensors(folder / "x.safetensors", tensors(), METADATA)
    return exactly(folder, lambda at: read_safetensors(at / "x.safetensors"))


def header(folder: Path) -> Reader:
    write_safetensors(folder / "x.safetensors", tensors(), METADATA)
    return exactly(folder, lambda at: read_metadata(at / "x.safetensors"))


def embeddings(folder: Path) -> Reader:
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    metadata = describe(model="clip", dataset="Pets", split="train", classnames=["cat", "dog"], templates=["a photo of a {c}"])
    save_embeddings(folder / "x", Embeddings(rows[:5], rows[5:], np.arange(5) % 2, list("abcde"), metadata))
    return exactly(folder, lambda at: load_embeddings(at / "x.safetensors"))


def description(folder: Path) -> Reader:
    embeddings(folder)
    return exactly(folder, lambda at: read_description(at / "x.safetensors"))


def training_state(folder: Path) -> Reader:
    def made() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
        parameters = {"w": nn.Parameter(torch.ones(3, 2)), "b": nn.Parameter(torch.ones(2))}
        return parameters, torch.optim.AdamW(parameters.values())

    parameters, optimizer = made()
    (parameters["w"] ** 2).sum().backward()
    optimizer.step()
    save_state(folder / "x.safetensors", parameters, optimizer, None, Progress(epoch=2, loss_sum=0.3), {"lr": 1e-3})

    def read(at: Path) -> Any:
        parameters, optimizer = made()
        progress = load_state(at / "x.safetensors", parameters, optimizer, None, {"lr": 1e-3})
        return asdict(progress), parameters, optimizer.state_dict()

    return exactly(folder, read)


def _pseudo_tokens(folder: Path) -> Path:
    settings = {"format": FORMAT, "kind": "oti", "dataset": "Digits", "split": "test", "side": "query", "exp_name": "e", "n_items": 3}
    from common.files import write_json

    write_json(folder / HYPERPARAMETERS, settings)
    images = Collection(RawSamples(np.arange(48, dtype=np.uint8).reshape(3, 4, 4), "digits"))
    for part in ([0, 2], [1]):
        n, generator = len(part), torch.Generator().manual_seed(len(part))
        features = nn.functional.normalize(torch.randn(n, 1, 4, generator=generator), dim=-1)
        drawn = torch.randn(n, 1, 2, 4, generator=generator), features, torch.rand(n, 1, generator=generator)
        save_shard(folder, images, part, Inverted(*drawn, torch.ones(3), (2,), torch.arange(n)), settings)
    return folder


def pseudo_tokens(folder: Path) -> Reader:
    return exactly(_pseudo_tokens(folder), load_pseudo_tokens, names=("items-", HYPERPARAMETERS, str(folder.parent)))


def pseudo_tokens_done(folder: Path) -> Reader:
    return exactly(_pseudo_tokens(folder), indices_done, names=("items-", HYPERPARAMETERS))


def pseudo_tokens_counted(folder: Path) -> Reader:
    return exactly(_pseudo_tokens(folder), count_done, names=("items-", HYPERPARAMETERS))


def inversion_features(folder: Path) -> Reader:
    write_safetensors(folder / "x.safetensors", {"features": torch.randn(3, 2)}, METADATA)
    return none_or_exactly(folder, lambda at: _kept(at / "x.safetensors", METADATA))


def few_shot_features(folder: Path) -> Reader:
    task: Any = SimpleNamespace(name="Digits", split="train")
    keep(folder, task, {"kind": "cache"}, Rows(torch.randn(3, 2), torch.arange(3), {"a.png": "empty"}))
    path = path_of(folder, task, {"kind": "cache"}).name
    assert (folder / path).is_file()
    return none_or_exactly(folder, lambda at: kept(at, task, {"kind": "cache"}))


def learnt_merge(folder: Path) -> Reader:
    shapes = {name: tensor for name, tensor in tensors().items() if tensor.dtype == torch.float32 and tensor.numel()}
    pool = make_pool(TensorWeights("base", shapes), [TensorWeights(name, shapes) for name in "ab"])
    columns = Columns.layer_wise({name: tuple(tensor.shape) for name, tensor in shapes.items()})
    Learnt("ties", torch.randn(2, len(columns.names)), {}, (1.5, 0.5)).save(folder / "x.safetensors", pool, columns)
    return exactly(folder, lambda at: load_learnt(at / "x.safetensors", "ties", pool, columns))


def _lora(folder: Path, small_model: Path) -> Encoder:
    encoder = load_encoder(str(small_model))
    base, options = hash_of_base(encoder), TuningOptions(rank=2)
    apply_tuning(encoder, "lora", options)
    save_checkpoint(folder / "x.safetensors", encoder, make_header(encoder, "lora", options, base, task="Digits", classnames=["0", "1"]))
    return encoder


def checkpoint_header(folder: Path, small_model: Path) -> Reader:
    _lora(folder, small_model)
    return exactly(folder, lambda at: read_header(at / "x.safetensors"))


def checkpoint(folder: Path, small_model: Path) -> Reader:
    _lora(folder, small_model)

    def read(at: Path) -> Any:
        encoder, header = load_checkpoint(at / "x.safetensors")
        return header, {name: value for name, value in encoder.named_parameters() if value.requires_grad}

    return exactly(folder, read)


def pickled(folder: Path) -> Reader:
    torch.save({"state_dict": tensors()}, folder / "x.pt")
    return roughly(folder, lambda at: _read_pickle(at / "x.pt"), are_tensors)


def pickled_as_of_old(folder: Path) -> Reader:
    torch.save(tensors(), folder / "x.pt", _use_new_zipfile_serialization=False)
    return roughly(folder, lambda at: _read_pickle(at / "x.pt"), are_tensors)


def pickled_slip(folder: Path) -> Reader:
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in tensors().items()}}, folder / "x.pt")
    return roughly(folder, lambda at: read_tensors(at / "x.pt"), are_tensors)


def pickled_hugging_face(folder: Path) -> Reader:
    torch.save(tensors(), folder / "pytorch_model.bin")
    return roughly(folder, read_weights, are_tensors)


def are_tensors(value: Any) -> None:
    """Every tensor of it can be read."""
    assert all(isinstance(tensor, torch.Tensor) for tensor in value.values())
    for tensor in value.values():
        tensor.clone()


QUICK = [plain, header, embeddings, description, training_state, pseudo_tokens, pseudo_tokens_done, pseudo_tokens_counted]
QUICK += [inversion_features, few_shot_features, learnt_merge, pickled, pickled_as_of_old, pickled_slip, pickled_hugging_face]


@pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.__name__)
def test_damaged_tensors(kind: Callable[[Path], Reader], tmp_path: Path) -> None:
    attack(kind(tmp_path), times(25, 1000))


@pytest.mark.parametrize(("kind", "long"), [(checkpoint_header, 1000), (checkpoint, 100)], ids=["header", "whole"])
def test_damaged_checkpoints(kind: Callable[[Path, Path], Reader], long: int, tmp_path: Path, small_model: Path) -> None:
    attack(kind(tmp_path, small_model), times(10, long))
