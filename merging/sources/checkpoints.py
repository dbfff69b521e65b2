"""clipscope's checkpoints of any tuning, and the models of the zoo that they were tuned from, under open_clip's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from merging.sources.naming import is_huggingface, to_open_clip
from merging.sources.source import Source
from merging.stream import TensorFile, sha256_of
from merging.weights import TensorWeights, View, Weights, part_of
from models.checkpoint import CheckpointHeader, base_sha256, load_checkpoint, make_header, read_header
from models.loading import load_encoder
from models.lora import LowRank, lora_weights
from models.tuning_options import TuningOptions

PREFIX = "model."  # of a model's parameters in an encoder, and so in a checkpoint
FOLDED = ("full", "lora", "l-lora", "bias", "attention")  # the tunings that give an encoder of the same shape


def open_zoo(model: str, name: str | None = None) -> Source:
    """A model of the zoo. It is built and stays in memory, since open_clip's checkpoints come in many forms."""
    encoder = load_encoder(model)
    header = make_header(encoder, "full", TuningOptions(), base_sha256(encoder))
    parameters = tuple(name for name, _ in encoder.model.named_parameters())
    weights = TensorWeights(name or model, {name: tensor.detach() for name, tensor in encoder.model.state_dict().items()})
    return Source(weights, model, "model", header=header, parameters=parameters)


def open_checkpoint(path: Path, name: str, like: Weights | None) -> Source:
    """A checkpoint as a whole model: what it stores, and the rest of the base that it was tuned from.

    The base is ``like`` where there is one. Raises :class:`UserError` for a tuning that cannot be merged, a damaged file, and a checkpoint
    that was tuned from another base.
    """
    header = read_header(path)
    if header.tuning not in FOLDED:
        raise UserError(
            f"'{path}' holds the tuning '{header.tuning}', which adds to the encoder's outputs; only {', '.join(FOLDED)} can be merged."
        )
    _verify(path)
    zoo = open_zoo(header.model) if like is None else None
    base, remark = _base(path, header, zoo or like)
    make = _lora if header.tuning in ("lora", "l-lora") else _stored
    parameters = zoo.parameters if zoo else ()
    source = Source(make(path, name, base), str(path), f"checkpoint ({header.tuning})", (path,), header=header, parameters=parameters)
    return replace(source, remarks=(remark,) if remark else ())


def _base(path: Path, header: CheckpointHeader, like: Source | Weights | None) -> tuple[Weights, str | None]:
    """The base under open_clip's names, once it is found to be the checkpoint's; or a remark when that cannot be told."""
    assert like is not None
    base = to_open_clip(like) if is_huggingface(like.specs) else like
    if isinstance(like, Source) and like.kind == "model" and like.header:
        found = like.header.base_sha256
    elif all(tensor.startswith("visual.") for tensor in base.specs):
        return base, f"'{like.name}' has no text tower, so whether '{path}' was tuned from it ('{header.model}') cannot be told."
    else:
        found = sha256_of(base)
    if found != header.base_sha256:
        raise UserError(
            f"'{path}' was tuned from '{header.model}' (sha256 {header.base_sha256[:12]}), "
            f"and the base '{like.name}' has other weights ({found[:12]})."
        )
    return base, None


def _verify(path: Path) -> None:
    """Compare the tensors with the checksum that clipscope writes into its files."""
    file = TensorFile(path)
    if file.checksum not in (None, sha256_of(file)):
        raise UserError(f"'{path}' is damaged or was edited: its tensors do not have the checksum in its header; write or fetch it again.")


def _stored(path: Path, name: str, base: Weights) -> View:
    """The stored tensors over those of the base."""
    file = TensorFile(path)
    own = {tensor.removeprefix(PREFIX): tensor for tensor in file.specs}
    specs = {**base.specs, **{tensor: file.specs[stored] for tensor, stored in own.items()}}

    def read(tensor: str, part: slice | None) -> Tensor:
        return file.read(own[tensor], part) if tensor in own else base.read(tensor, part)

    return View(name, specs, read)


def _lora(path: Path, name: str, base: Weights) -> View:
    """The low-rank updates, folded into the base's weights as they are read. Only the updates stay in memory."""
    model = load_checkpoint(path)[0].model
    updates: dict[str, LowRank] = {}
    for tensor, (module, parameter) in lora_weights(model).items():
        chains: object = module.parametrizations[parameter]  # type: ignore[union-attr, index]
        updates[tensor] = chains[0]  # type: ignore[index]

    def read(tensor: str, part: slice | None) -> Tensor:
        if tensor not in updates:
            return base.read(tensor, part)
        with torch.no_grad():
            return part_of(updates[tensor](base.read(tensor)), part)

    return View(name, base.specs, read)
