"""config.json of a Hugging Face CLIP as open_clip's model configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from common.errors import UserError
from models.huggingface.files import is_huggingface_vision, read_object

Config = dict[str, Any]

OPEN_CLIP_EPS = 1e-5  # of open_clip's LayerNorm where the config does not say
LEGACY_EOS = 2  # transformers wrote this id by mistake until PR 24773 and still answers it with the argmax of the ids
ACTIVATIONS: dict[str, tuple[bool, Config]] = {  # hidden_act -> open_clip's quick_gelu, and what its GELU takes
    "quick_gelu": (True, {}),
    "gelu": (False, {}),
    "gelu_python": (False, {}),
    "gelu_new": (False, {"approximate": "tanh"}),
    "gelu_pytorch_tanh": (False, {"approximate": "tanh"}),
}


def model_config(folder: Path) -> Config:
    """open_clip's configuration of the model in ``folder``; without ``text_cfg`` for a vision tower alone."""
    convert = open_clip_vision_config if is_huggingface_vision(folder) else open_clip_config
    try:
        return convert(read_object(folder / "config.json"))
    except UserError as error:
        raise UserError(f"Cannot convert '{folder}': {error}") from error


def open_clip_config(hf_config: Config) -> Config:
    """The arguments of open_clip's ``CLIP`` for the ``config.json`` of a ``CLIPModel``.

    Absent keys have transformers' defaults. Attention dropout is left out: encoders here never run in training mode.
    Raises :class:`UserError` naming what open_clip cannot represent.
    """
    from transformers import CLIPConfig

    config = _parsed(CLIPConfig, hf_config)
    vision, text = config.vision_config, config.text_config
    if _activation(vision)[0] != _activation(text)[0]:
        raise UserError(
            f"The towers' hidden_act differ ('{vision.hidden_act}' and '{text.hidden_act}'); open_clip runs both with QuickGELU or neither."
        )
    return {
        "embed_dim": _positive(config, "projection_dim"),
        "vision_cfg": _vision_cfg(vision),
        "text_cfg": _text_cfg(text),
        "quick_gelu": _activation(vision)[0],
    }


def open_clip_vision_config(hf_config: Config) -> Config:
    """As :func:`open_clip_config` for a ``CLIPVisionModel``: ``embed_dim``, ``vision_cfg`` and ``quick_gelu``."""
    from transformers import CLIPVisionConfig

    config = _parsed(CLIPVisionConfig, hf_config)
    return {
        "embed_dim": _positive(config, "projection_dim"),
        "vision_cfg": _vision_cfg(config),
        "quick_gelu": _activation(config)[0],
    }


def _parsed(kind: Any, hf_config: Config) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind.from_dict(hf_config)
    except (StrictDataclassError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"The config.json is not a valid {kind.__name__}: {' '.join(str(error).split()).rstrip('.')}.") from error


def _vision_cfg(vision: Any) -> Config:
    if vision.num_channels != 3:
        raise UserError(f"The vision tower takes {vision.num_channels} channels (num_channels); open_clip's takes 3.")
    return {
        "image_size": _positive(vision, "image_size"),
        "patch_size": _positive(vision, "patch_size"),
        "head_width": vision.hidden_size // _positive(vision, "num_attention_heads"),
        **_tower_cfg(vision),
    }


def _text_cfg(text: Any) -> Config:
    eos = text.eos_token_id
    if type(eos) is not int:
        raise UserError(f"The text tower's eos_token_id is {eos}; expected one token id, whose first place is where the text is pooled.")
    return {
        "context_length": _positive(text, "max_position_embeddings"),
        "vocab_size": _positive(text, "vocab_size"),
        "heads": _positive(text, "num_attention_heads"),
        **({"pool_type": "argmax"} if eos == LEGACY_EOS else {"pool_type": "eos", "eos_id": eos}),
        **_tower_cfg(text),
    }


def _tower_cfg(tower: Any) -> Config:
    """What both towers are told in the same words."""
    eps, activation = tower.layer_norm_eps, _activation(tower)[1]
    if not isinstance(eps, float | int):
        raise UserError(f"The layer_norm_eps is {eps}; expected a number.")
    return {
        "width": _positive(tower, "hidden_size"),
        "layers": _positive(tower, "num_hidden_layers"),
        "mlp_ratio": mlp_ratio(_positive(tower, "hidden_size"), _positive(tower, "intermediate_size")),
        **({} if eps == OPEN_CLIP_EPS else {"norm_kwargs": {"eps": eps}}),
        **({"act_kwargs": dict(activation)} if activation else {}),
    }


def _positive(config: Any, key: str) -> int:
    value = getattr(config, key)
    if type(value) is not int or value < 1:
        raise UserError(f"The config.json's {key} is {value}; expected one positive whole number.")
    return value


def _activation(tower: Any) -> tuple[bool, Config]:
    if tower.hidden_act not in ACTIVATIONS:
        raise UserError(f"The activation '{tower.hidden_act}' (hidden_act) is not one that open_clip has; known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[tower.hidden_act]


def mlp_ratio(width: int, hidden: int) -> float:
    """The ratio that open_clip, which computes ``int(width * ratio)``, turns into exactly ``hidden``."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
