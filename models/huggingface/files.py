"""Where a Hugging Face model lies, and its weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import read_json
from models.tensors import read_safetensors

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")  # patterns to fetch
ADAPTERS = ("adapter_model.safetensors", "linearized_adapter_model.safetensors")  # of a LoRA, and of a linearised one
ADAPTER_CONFIG = "adapter_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
CONFIGURATION = ("config.json", "preprocessor_config.json", "processor_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(folder_or_id: str) -> Path:
    """The folder that ``folder_or_id`` names; a hub id ``org/name`` is downloaded, or found in the hub's cache.

    Only configuration, tokenizer and weights, of a model or of a LoRA, are fetched, and pickled weights only where there are no
    safetensors.
    """
    folder = Path(folder_or_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"'{folder_or_id}' is a file; give the folder that holds config.json and the weights.")
    if not HUB_ID.fullmatch(folder_or_id):
        raise UserError(f"No such model folder: '{folder_or_id}'; expected a folder or a Hugging Face hub id ORG/NAME.")
    folder = _download(folder_or_id, [*CONFIGURATION, *TOKENIZER, *SAFETENSORS, ADAPTER_CONFIG, *ADAPTERS])
    if any((folder / name).exists() for name in (*SAFETENSORS[:2], *ADAPTERS)):
        return folder
    return _download(folder_or_id, [*CONFIGURATION, *TOKENIZER, *PICKLES])


def _download(repository: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    local = "a path to a local folder works too"
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UserError(f"'{repository}' is gated: accept its terms on the hub and run 'hf auth login'; {local}.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"There is no folder and no public Hugging Face repository '{repository}'; {local}.") from error
    except OSError as error:  # every error of the connection, of the hub's cache and of the disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")
        raise UserError(f"Cannot fetch '{repository}' from the Hugging Face hub ({reason}); {local}.") from error


def is_huggingface_clip(folder: Path) -> bool:
    """Whether ``folder`` holds a ``CLIPModel``: both towers and their projections."""
    return _model_type(folder) == "clip"


def is_huggingface_vision(folder: Path) -> bool:
    """Whether ``folder`` holds a ``CLIPVisionModel``: the vision tower alone."""
    return _model_type(folder) == "clip_vision_model"


def _model_type(folder: Path) -> str | None:
    path = folder / "config.json"
    return read_object(path).get("model_type") if path.is_file() else None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; :class:`UserError` when it holds anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"'{path}' should hold a JSON object, not a {type(value).__name__}.")
    return value


def find_weights(folder: Path) -> list[Path]:
    """The file, or the files of a sharded model, that hold the weights in ``folder``; safetensors before pickles."""
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            return _shards(path) if path.suffix == ".json" else [path]
    raise UserError(f"There are no weights in '{folder}'; expected {WEIGHT_FILES[0]}, its shards with an index, or {WEIGHT_FILES[2]}.")


def _shards(index: Path) -> list[Path]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"'{index}' names no shards; expected a \"weight_map\" from tensors to files.")
    shards = [index.parent / str(name) for name in sorted(set(map(str, weight_map.values())))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise UserError(
            f"'{index.parent}' lacks {len(absent)} of the {len(shards)} shards in {index.name} ('{absent[0]}'); fetch them too."
        )
    return shards


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the model in ``folder``, on the CPU, under their Hugging Face names."""
    tensors: dict[str, Tensor] = {}
    for path in find_weights(folder):
        tensors |= read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers damaged bytes with exceptions of many types
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            reason = f"it would execute code to be read ({code[1]}), which is refused; save its tensors as model.safetensors"
        else:
            reason = "it is damaged or not a PyTorch file; fetch it again"
        raise UserError(f"Cannot read '{path}': {reason}.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"'{path}' does not hold a state dict (names to tensors).")
    return tensors
