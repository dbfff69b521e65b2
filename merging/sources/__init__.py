"""Open the models that are merged, whatever they are: each becomes :class:`~merging.weights.Weights` under the base's names.

===============================================  =====================================================================
what is named                                    what it is
===============================================  =====================================================================
``FILE.safetensors``                             tensors, of a CLIP or of anything else; or a checkpoint of clipscope
``FILE.safetensors.index.json``                  the shards of one model
a folder, or a hub id ``ORG/NAME``               a Hugging Face model; a PEFT LoRA or a linearised one, folded on load
``tiny``, ``clip``, ``ARCH/PRETRAINED`` ...      a model of the zoo (:mod:`models.zoo`)
===============================================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from merging.sources.naming import is_vision, under
from merging.sources.peft import ADAPTER, LINEARIZED, open_linearized_lora, open_lora
from merging.sources.source import Source, default_name, named, of_files, unique
from merging.stream import TensorFile
from merging.weights import TensorWeights, Weights

__all__ = ["Source", "is_vision", "open_all", "open_weights", "under"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PATHS = (".safetensors", ".json", ".pt", ".pth", ".bin", ".ckpt")  # what ends so is a file, not a name of the zoo or of the hub


def open_all(base: str | None, models: Sequence[str]) -> tuple[Source | None, list[Source]]:
    """The base and the models ``[NAME=]SOURCE``, which are read under the base's names.

    Without a base, checkpoints of clipscope have the one that the first of them names; other models take the names of the first.
    Raises :class:`UserError` for what cannot be opened.
    """
    pairs = unique([named(argument) for argument in models], models)
    first = _tuned_from(pairs[0][1]) if base is None else base
    like: Source | None = open_weights(first) if first is not None else None
    opened: list[Source] = []
    for name, spelled in pairs:
        opened.append(open_weights(spelled, like or (opened[0] if opened else None), name))
    return like, opened


def open_weights(spelled: str, like: Weights | None = None, name: str | None = None) -> Source:
    """The model that ``spelled`` names, under the names of ``like``, the base, where there is one.

    LoRA folders and checkpoints of clipscope are updates of ``like``. Raises :class:`UserError` when there is no such model, when it
    is damaged, or when it was tuned from another base.
    """
    name = name or default_name(spelled)
    path = Path(spelled).expanduser()
    if path.is_dir():
        source = _open_folder(path, name, like)
    elif path.is_file() or path.suffix in PATHS:
        source = _open_file(path, name, like)
    else:
        source = _open_name(spelled, name, like)
    weights = source.weights if like is None else under(source.weights, like)
    return replace(source, weights=weights, spelled=spelled)


def _open_file(path: Path, name: str, like: Weights | None) -> Source:
    if path.suffix == ".json":
        shards = _shards(path)
        weights = _as_indexed(of_files(name, shards), path)
        return Source(weights, str(path), "safetensors shards", tuple(shards), {"format": "pt"})
    metadata = TensorFile(path).metadata
    if metadata.get("format", "").startswith("clipscope-"):
        from merging.sources.checkpoints import open_checkpoint

        return open_checkpoint(path, name, like)
    return Source(of_files(name, [path]), str(path), "safetensors file", (path,), metadata)


def _open_folder(folder: Path, name: str, like: Weights | None) -> Source:
    for file, read in ((LINEARIZED, open_linearized_lora), (ADAPTER, open_lora)):
        if (folder / file).is_file():
            if like is None:
                raise UserError(f"'{folder}' holds a LoRA, which is an update of a model; name that one with --base.")
            return Source(read(folder, name, like), str(folder), "LoRA", (folder / file, folder / "adapter_config.json"))
    if (folder / "open_clip_config.json").is_file():
        return _open_zoo(str(folder), name)
    if (folder / SINGLE).is_file():
        files = [folder / SINGLE]
        return Source(of_files(name, files), str(folder), "Hugging Face folder", tuple(files), TensorFile(files[0]).metadata, folder)
    return _open_other_folder(folder, name)


def _open_other_folder(folder: Path, name: str) -> Source:
    """A Hugging Face model in shards, or one that is pickled, which must be in memory."""
    from models.huggingface import find_weights, read_weights

    files = find_weights(folder)
    pickled = any(file.suffix != ".safetensors" for file in files)
    weights = TensorWeights(name, read_weights(folder)) if pickled else _as_indexed(of_files(name, files), folder / INDEX)
    return Source(weights, str(folder), "Hugging Face folder", tuple(files), {"format": "pt"}, folder)


def _open_name(spelled: str, name: str, like: Weights | None) -> Source:
    from models import huggingface, zoo

    if zoo.resolve(spelled).kind == "huggingface":
        return _open_folder(huggingface.resolve(spelled), name, like)
    return _open_zoo(spelled, name)


def _open_zoo(model: str, name: str) -> Source:
    from merging.sources.checkpoints import open_zoo

    return open_zoo(model, name)


def _tuned_from(spelled: str) -> str | None:
    """The model that a checkpoint of clipscope was tuned from; None for any other source."""
    path = Path(spelled).expanduser()
    if not path.is_file() or path.suffix != ".safetensors" or not TensorFile(path).metadata.get("format", "").startswith("clipscope-"):
        return None
    from models.checkpoint import read_header

    return read_header(path).model


def _as_indexed(weights: Weights, index: Path) -> Weights:
    """``weights``, which must be the tensors that the index of their shards names."""
    strange = sorted(weights.specs.keys() ^ read_json(index)["weight_map"].keys())
    if strange:
        holder = "a shard" if strange[0] in weights.specs else "the index"
        raise UserError(f"'{index}' and its shards do not fit: only {holder} has '{strange[0]}'; fetch the whole model again.")
    return weights


def _shards(index: Path) -> list[Path]:
    """The files that a safetensors index names."""
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise UserError(f"'{index}' names no shards; expected a \"weight_map\" from tensors to files.")
    names = sorted(set(map(str, files.values())))
    if strange := [name for name in names if not name.endswith(".safetensors")]:
        raise UserError(f"'{index}' names {strange[0]!r} as a shard, which is no safetensors file.")
    return [index.parent / name for name in names]
