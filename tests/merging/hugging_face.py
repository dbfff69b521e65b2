"""Small Hugging Face CLIPs in folders, as transformers 4 and 5 write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.huggingface import open_clip_config, to_huggingface_state_dict

TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIG: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 8,
    "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
    "text_config": {**TOWER, "vocab_size": 50, "max_position_embeddings": 7, "eos_token_id": 1, "bos_token_id": 0},
}
PREFIX = "vision_model."
Tensors = dict[str, Tensor]


def clip(seed: int) -> Tensors:
    """The tensors of a whole ``CLIPModel``, random."""
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = open_clip_config(CONFIG)
        model = CLIP(**config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return {name: tensor.clone() for name, tensor in to_huggingface_state_dict(model.state_dict(), config).items()}


def vision(tensors: Tensors, spelling: int = 4, position_ids: bool = False) -> Tensors:
    """The vision tower of a ``CLIPModel``, as transformers 4 or 5 spells it, with the constant that old versions stored."""
    prefix = PREFIX if spelling == 4 else ""
    own = {prefix + name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return own | ({f"{prefix}embeddings.position_ids": torch.arange(5)[None]} if position_ids else {})


def tuned(base: Tensors, seed: int) -> Tensors:
    """The base, moved a little in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}


def write(folder: Path, tensors: Tensors, config: dict[str, Any] | None = None) -> str:
    """A folder with weights and configuration, and something that is neither."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    whole = any(name.startswith("text_model.") for name in tensors)
    given = config or (CONFIG if whole else {"model_type": "clip_vision_model", **CONFIG["vision_config"]})
    (folder / "config.json").write_text(json.dumps(given))
    (folder / "merges.txt").write_text("a b\n")
    (folder / "README.md").write_text("of the base\n")
    return str(folder)
