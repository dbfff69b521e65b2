"""Small random encoders of every kind of architecture, for tests: built in a fraction of a second, nothing downloaded."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.encoder import Encoder
from models.zoo import ModelSource

torch.set_num_threads(1)  # threads cost more than they give here, and hundreds of times more on a busy machine

WIDTH = 32
VOCABULARY = 49408
VISION = {"image_size": 32, "patch_size": 16, "width": WIDTH, "layers": 3, "head_width": 16}
TRUNK = {"img_size": 32, "patch_size": 16, "embed_dim": WIDTH, "depth": 3, "num_heads": 2, "num_classes": 0}
TEXT = {"context_length": 77, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 2, "layers": 3}
PROMPTS = ["a photo of a cat", "a centered satellite photo of an annual crop land, seen from above", "dog"]


def _seeded(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The same weights whenever a model is built, without touching the global random state."""

    @functools.wraps(build)
    def seeded(*args: Any, **kwargs: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(*args, **kwargs)

    return seeded


@_seeded
def clip(**text: Any) -> nn.Module:
    """CLIP: both towers in one module."""
    return open_clip.CLIP(embed_dim=WIDTH, vision_cfg=VISION, text_cfg={**TEXT, **text}, quick_gelu=True)


@_seeded
def custom_text(**text: Any) -> nn.Module:
    """A CLIP whose text tower is a module of its own, as in EVA02-CLIP."""
    return open_clip.CustomTextCLIP(embed_dim=WIDTH, vision_cfg=VISION, text_cfg={**TEXT, **text})


@_seeded
def siglip_text() -> nn.Module:
    """A text tower in the form of SigLIP's: no causal mask, feature of the last position, projection with bias."""
    return custom_text(vocab_size=320, context_length=16, no_causal_mask=True, proj_bias=True, pool_type="last")


@_seeded
def coca() -> nn.Module:
    """CoCa: an appended token in the text tower, attention pooling in the image tower; no caption decoder."""
    text = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    vision = {**VISION, "width": 48, "attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 2, "output_tokens": True}
    decoder = {**TEXT, "context_length": 76, "layers": 1, "attn_pooler_heads": 2}
    model = open_clip.CoCa(embed_dim=WIDTH, multimodal_cfg=decoder, text_cfg=text, vision_cfg=vision)
    del model.text_decoder
    return model


@_seeded
def resnet() -> nn.Module:
    """open_clip's ModifiedResNet as image tower, with attention pooling."""
    vision = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "head_width": 16}
    return open_clip.CLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=TEXT)


@_seeded
def convnext() -> nn.Module:
    """A timm convolutional network as image tower."""
    vision = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    return open_clip.CLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=TEXT)


@_seeded
def siglip() -> nn.Module:
    """SigLIP's image tower: a timm ViT without class token, with fused qkv and a pooling attention with latent query."""
    return _with_trunk(VisionTransformer(**TRUNK, class_token=False, global_pool="map"))


@_seeded
def siglip_both() -> nn.Module:
    """Both towers in the form of SigLIP's: the text tower of :func:`siglip_text`, the image tower of :func:`siglip` without a head."""
    model = siglip_text()
    model.visual = siglip().visual
    model.visual.head = nn.Sequential()
    return model


@_seeded
def slip() -> nn.Module:
    """SLIP: CLIP's text tower, and a timm ViT with class token and a linear projection."""
    return _with_trunk(VisionTransformer(**TRUNK))


@_seeded
def eva02() -> nn.Module:
    """EVA02-CLIP's image tower: separate q, k, v, rotary positions, a gated MLP."""
    return _with_trunk(Eva(**TRUNK, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True))


def _with_trunk(trunk: nn.Module) -> nn.Module:
    """A CLIP whose image tower is open_clip's wrapper around a timm network, here one smaller than timm lists."""
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 32}
    model = open_clip.CLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=TEXT)
    model.visual.trunk = trunk
    model.visual.head = nn.Linear(WIDTH, WIDTH)
    return model


@_seeded
def huggingface_text(folder: Path) -> nn.Module:
    """A Hugging Face BERT as text tower; ``folder`` receives its configuration."""
    import transformers

    transformers.BertConfig(
        vocab_size=100, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=20
    ).save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_model_pretrained": False, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    return open_clip.CustomTextCLIP(embed_dim=WIDTH, vision_cfg=VISION, text_cfg=text)


@_seeded
def full_size(architecture: str) -> nn.Module:
    """One of open_clip's architectures with random weights."""
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(architecture, pretrained=None)
    finally:
        logging.disable(logging.NOTSET)


@functools.cache
def vit_b_32() -> Encoder:
    """The architecture of `clip` with random weights, built once: it takes seconds."""
    return encoder(full_size("ViT-B-32-quickgelu"), noise=0)


def encoder(model: nn.Module, vocabulary: int = VOCABULARY, length: int = 77, noise: float = 0.05) -> Encoder:
    """``model`` as an encoder, all frozen; ``noise`` moves every weight, so that no bias is 0 and no two layers are alike."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters() if noise else ():
        parameter.data += noise * torch.randn(parameter.shape, generator=generator)
    model.requires_grad_(False)
    tokenizer = _byte_pairs(length) if vocabulary == VOCABULARY else _letters(vocabulary, length)
    return Encoder(ModelSource("small", "open_clip", "small"), model, lambda image: torch.zeros(3, 32, 32), tokenizer)


@functools.cache
def _byte_pairs(length: int) -> Callable[[list[str]], Tensor]:
    return SimpleTokenizer(context_length=length)


def _letters(vocabulary: int, length: int) -> Callable[[list[str]], Tensor]:
    """One token a letter, padded with 1: stands in for tokenizers that would have to be downloaded."""

    def tokenize(prompts: list[str]) -> Tensor:
        rows = [[2 + ord(letter) % (vocabulary - 2) for letter in prompt][:length] for prompt in prompts]
        return torch.tensor([row + [1] * (length - len(row)) for row in rows])

    return tokenize


def pixels(encoder: Encoder, count: int = 3) -> Tensor:
    """Random images [count, 3, H, W]."""
    return torch.randn(count, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(2))


def embeddings(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Image and text embeddings of some inputs, without gradient."""
    with torch.no_grad():
        return encoder.encode_image(pixels(encoder)), encoder.encode_text(encoder.tokenize(PROMPTS))


def write_local_dir(folder: Path, seed: int = 0) -> str:
    """A small CLIP as an open_clip ``local-dir``; returns its model name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(embed_dim=WIDTH, vision_cfg=VISION, text_cfg=TEXT)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": {"embed_dim": WIDTH, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
