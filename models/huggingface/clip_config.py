"""config.json and preprocessor_config.json of a Hugging Face CLIP for an open_clip one: ``config`` and ``preprocess`` backwards."""

from __future__ import annotations

from typing import Any

from open_clip import CLIP
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import nn

from common.errors import UserError
from models.encoder import Encoder
from models.huggingface.config import LEGACY_EOS, OPEN_CLIP_EPS, Config, mlp_ratio
from models.huggingface.preprocess import INTERPOLATIONS
from models.huggingface.tokenizer import STANDARD_VOCABULARY

START_OF_TEXT, END_OF_TEXT = STANDARD_VOCABULARY - 2, STANDARD_VOCABULARY - 1  # of the vocabulary of OpenAI's CLIP


def clip_model_config(encoder: Encoder) -> Config:
    """open_clip's configuration of ``encoder``, read off its modules, so that it does not matter where it came from.

    Raises :class:`UserError` for a model that is not made of CLIP's own two transformers.
    """
    model: Any = encoder.model
    visual: Any = encoder.image_tower
    plain = type(model) is CLIP and isinstance(visual, VisionTransformer) and isinstance(visual.ln_pre, nn.LayerNorm)
    if not plain or type(_block(visual)) is not ResidualAttentionBlock or type(_block(model)) is not ResidualAttentionBlock:
        raise no_form(encoder)
    return {
        "embed_dim": visual.proj.shape[1],
        "vision_cfg": {
            "image_size": encoder.image_size,
            "patch_size": visual.conv1.kernel_size[0],
            "head_width": _block(visual).attn.head_dim,
            **_tower(visual),
        },
        "text_cfg": {
            "context_length": model.context_length,
            "vocab_size": model.vocab_size,
            "heads": _block(model).attn.num_heads,
            **_pooling(encoder),
            **_tower(model),
        },
        "quick_gelu": isinstance(_block(visual).mlp.gelu, QuickGELU),
    }


def no_form(encoder: Encoder) -> UserError:
    """The one sentence for all other architectures."""
    kinds = " and ".join(type(getattr(tower, "trunk", tower)).__name__ for tower in (encoder.image_tower, encoder.text_tower.module))
    return UserError(
        f"'{encoder.source.name}' ({kinds}) has no Hugging Face CLIP form; only OpenAI's architecture has one: two plain transformers, "
        "pooled at the class token and at the end of the text."
    )


def _block(tower: Any) -> Any:
    return tower.transformer.resblocks[0]


def _tower(tower: Any) -> Config:
    """What both towers are told in the same words."""
    block = _block(tower)
    width, approximate = block.attn.embed_dim, getattr(block.mlp.gelu, "approximate", "none")
    return {
        "width": width,
        "layers": len(tower.transformer.resblocks),
        "mlp_ratio": mlp_ratio(width, block.mlp.c_fc.out_features),
        **({} if block.ln_1.eps == OPEN_CLIP_EPS else {"norm_kwargs": {"eps": block.ln_1.eps}}),
        **({} if approximate == "none" else {"act_kwargs": {"approximate": approximate}}),
    }


def _pooling(encoder: Encoder) -> Config:
    kind, eos = encoder.model.text_pool_type, encoder.model.text_eos_id
    if kind not in ("argmax", "eos"):
        raise no_form(encoder)
    return {"pool_type": "argmax"} if kind == "argmax" else {"pool_type": "eos", "eos_id": eos}


def huggingface_config(model_cfg: Config, vision_only: bool) -> Config:
    """config.json of a ``CLIPModel``, or of a ``CLIPVisionModel``, for open_clip's ``model_cfg``; transformers 4 and 5 read it.

    :func:`~models.huggingface.config.open_clip_config` is the way back.
    """
    own = {"projection_dim": model_cfg["embed_dim"], "torch_dtype": "float32"}
    vision = {"model_type": "clip_vision_model", **own, **_vision(model_cfg)}
    if vision_only:
        return {"architectures": ["CLIPVisionModel"], **vision}
    text = {"model_type": "clip_text_model", **own, **_text(model_cfg)}
    return {"architectures": ["CLIPModel"], "model_type": "clip", **own, "text_config": text, "vision_config": vision}


def _vision(model_cfg: Config) -> Config:
    tower = CLIPVisionCfg(**model_cfg["vision_cfg"])
    sizes = {"image_size": tower.image_size, "patch_size": tower.patch_size, "num_channels": 3}
    return {**sizes, "num_attention_heads": tower.width // tower.head_width, **_layers(tower, model_cfg)}


def _text(model_cfg: Config) -> Config:
    """CLIP's own vocabulary ends with the token that pooling takes, so its id says the same as the greatest id of all."""
    tower = CLIPTextCfg(**model_cfg["text_cfg"])
    standard = tower.vocab_size == STANDARD_VOCABULARY
    greatest = END_OF_TEXT if standard else LEGACY_EOS
    return {
        "vocab_size": tower.vocab_size,
        "max_position_embeddings": tower.context_length,
        "num_attention_heads": tower.heads,
        "eos_token_id": greatest if tower.pool_type == "argmax" else tower.eos_id,
        **({"bos_token_id": START_OF_TEXT, "pad_token_id": END_OF_TEXT} if standard else {}),
        **_layers(tower, model_cfg),
    }


def _layers(tower: Any, model_cfg: Config) -> Config:
    tanh = (tower.act_kwargs or {}).get("approximate") == "tanh"
    plain = "gelu_pytorch_tanh" if tanh else "gelu"
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "hidden_act": "quick_gelu" if model_cfg["quick_gelu"] else plain,
        "layer_norm_eps": (tower.norm_kwargs or {}).get("eps", OPEN_CLIP_EPS),
    }


def preprocessor_config(encoder: Encoder) -> Config:
    """preprocessor_config.json: the image processor that does what ``encoder.preprocess`` does.

    Raises :class:`UserError` for a resize that the image processor of CLIP does not have.
    """
    visual: Any = encoder.image_tower
    config, size = PreprocessCfg(**visual.preprocess_cfg), encoder.image_size
    resample = {name: number for number, name in INTERPOLATIONS.items()}.get(config.interpolation)
    if config.resize_mode not in ("shortest", "squash") or resample is None:
        raise UserError(
            f"'{encoder.source.name}' resizes images by {config.resize_mode}, {config.interpolation}, which CLIPImageProcessor does not do."
        )
    square, cropped = {"height": size, "width": size}, config.resize_mode == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size} if cropped else square,
        "resample": resample,
        "do_center_crop": cropped,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
