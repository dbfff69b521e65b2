"""A model that is merged, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from common.errors import UserError
from merging.stream import Spec, TensorFile
from merging.weights import View, Weights

if TYPE_CHECKING:
    from models.checkpoint import CheckpointHeader

WEIGHTS = ("model", "pytorch_model", "open_clip_model", "adapter_model")  # file names that say nothing about the model


@dataclass(frozen=True)
class Source:
    """The weights of a model as the user named it.

    ``spelled`` is what was typed, ``kind`` what it was found to be, ``files`` those whose bytes decide the weights. ``metadata`` is a
    safetensors file's, ``folder`` a Hugging Face model's, ``header`` a checkpoint's or a model's of the zoo, ``parameters`` are
    the names that a checkpoint stores. ``remarks`` are sentences that the user should read.
    """

    weights: Weights
    spelled: str
    kind: str
    files: tuple[Path, ...] = ()
    metadata: Mapping[str, str] | None = None
    folder: Path | None = None
    header: CheckpointHeader | None = None
    parameters: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tables and reports call the model."""
        return self.weights.name

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Every tensor's shape and dtype."""
        return self.weights.specs

    def read(self, name: str, part: slice | None = None) -> Tensor:
        """The tensor called ``name``, or a part of it."""
        return self.weights.read(name, part)


def of_files(name: str, paths: Sequence[Path]) -> View:
    """The tensors of one safetensors file, or of the shards of one model. UserError when two shards hold the same tensor."""
    holders: dict[str, TensorFile] = {}
    for path in paths:
        file = TensorFile(path)
        repeated = next((tensor for tensor in file.specs if tensor in holders), None)
        if repeated is not None:
            raise UserError(f"'{path}' and '{holders[repeated].path}' both hold '{repeated}'; a tensor lies in one shard only.")
        holders |= dict.fromkeys(file.specs, file)
    specs = {tensor: file.specs[tensor] for tensor, file in holders.items()}
    return View(name, specs, lambda tensor, part: holders[tensor].read(tensor, part))


def default_name(spelled: str) -> str:
    """What a model is called that was given no name: its file without the suffix, or the last part of its folder or hub id."""
    path = Path(spelled)
    last = path.stem if path.suffix in (".safetensors", ".json") else path.name
    nameless = last in WEIGHTS and path.parent.name
    return path.parent.name if nameless else last or spelled


def named(argument: str) -> tuple[str, str]:
    """``[NAME=]SOURCE`` as (NAME or the default, SOURCE); a path that holds an equals sign and exists is a path."""
    found = re.fullmatch(r"([^=/]+)=(.+)", argument)
    if found and not Path(argument).exists():
        return found[1], found[2]
    return default_name(argument), argument


def unique(pairs: Sequence[tuple[str, str]], given: Sequence[str]) -> list[tuple[str, str]]:
    """(name, source) of every model, no name twice: a default name that is taken gets a number.

    ``given`` are the arguments, which tell a name that was typed; UserError when one was typed twice.
    """
    typed = [name for (name, source), argument in zip(pairs, given, strict=True) if argument != source]
    for name in typed:
        if typed.count(name) > 1:
            raise UserError(f"Two models are named '{name}'; every model needs a name of its own.")
    taken, result = set(typed), []
    for (name, source), argument in zip(pairs, given, strict=True):
        own, number = name, 2
        while argument == source and own in taken:
            own, number = f"{name}-{number}", number + 1
        taken.add(own)
        result.append((own, source))
    return result
