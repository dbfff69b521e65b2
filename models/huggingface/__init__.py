"""Hugging Face ``CLIPModel`` folders and hub ids as open_clip models, exactly, and back again.

Both libraries run the same network under other names. ``state_dict`` holds the one table of names, ``config`` the
translation of config.json, ``preprocess`` that of the image processor, ``tokenizer`` the choice of tokenizer, ``files`` where
things lie and how weights are read. The Hugging Face model itself is never built, and no code from a repository is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.model import CLIP, set_model_preprocess_cfg
from torch import Tensor

from common.errors import UserError
from models.huggingface.config import Config, model_config, open_clip_config, open_clip_vision_config
from models.huggingface.files import find_weights, is_huggingface_clip, is_huggingface_vision, read_weights, resolve
from models.huggingface.preprocess import preprocess_config
from models.huggingface.state_dict import (
    TensorPair,
    convert_state_dict,
    convert_vision_state_dict,
    tensor_pairs,
    to_huggingface_state_dict,
    to_huggingface_vision_state_dict,
    vision_pairs,
)
from models.huggingface.tokenizer import load_tokenizer

__all__ = [
    "HuggingFaceClip",
    "TensorPair",
    "convert_state_dict",
    "convert_vision_state_dict",
    "empty_clip",
    "find_weights",
    "is_huggingface_clip",
    "is_huggingface_vision",
    "load_huggingface_clip",
    "load_tokenizer",
    "model_config",
    "open_clip_config",
    "open_clip_vision_config",
    "preprocess_config",
    "read_weights",
    "resolve",
    "tensor_pairs",
    "to_huggingface_state_dict",
    "to_huggingface_vision_state_dict",
    "vision_pairs",
]


@dataclass(frozen=True)
class HuggingFaceClip:
    """A converted model: open_clip's ``CLIP`` in float32 on the CPU, in evaluation mode, and what goes with it."""

    model: CLIP
    model_cfg: Config
    preprocess_cfg: Config
    tokenizer: Callable[..., Tensor]
    folder: Path


def load_huggingface_clip(name: str) -> HuggingFaceClip:
    """Load and convert the ``CLIPModel`` in the folder or hub repository ``name``.

    Features equal those of transformers to float rounding (tests: 1e-5 at B/32, B/16 and L/14). The state of torch's
    random generator does not change. Raises :class:`UserError` when the folder cannot be fetched, read or represented.
    """
    folder = resolve(name)
    if not is_huggingface_clip(folder):
        raise UserError(f"'{name}' is not a Hugging Face CLIP model; expected a config.json whose model_type is \"clip\".")
    model_cfg = model_config(folder)
    preprocess_cfg = preprocess_config(folder)
    tokenizer = load_tokenizer(folder, model_cfg)
    state_dict = convert_state_dict(read_weights(folder), model_cfg, f"The weights in '{folder}'")
    model = empty_clip(model_cfg)
    model.load_state_dict(state_dict, strict=True)
    set_model_preprocess_cfg(model, preprocess_cfg)
    return HuggingFaceClip(model.eval(), model_cfg, preprocess_cfg, tokenizer, folder)


def empty_clip(model_cfg: Config) -> CLIP:
    """The model with memory but no values, except for the causal mask, which no state dict holds.

    Drawing the initial weights of an L/14 only to overwrite them takes longer than reading the file, and would move the
    random generator.
    """
    with torch.device("meta"):
        model = CLIP(**model_cfg)
    model.to_empty(device="cpu")
    context = model.context_length
    model.attn_mask = torch.full((context, context), float("-inf")).triu_(1)
    return model
