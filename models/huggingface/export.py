"""Encoders as folders that transformers and PEFT read, in the spelling of transformers 4 (``vision_model.`` before a vision tower)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import in_the_making, write_json
from models.encoder import Encoder
from models.huggingface import empty_clip, tensor_pairs, to_huggingface_state_dict, to_huggingface_vision_state_dict
from models.huggingface.clip_config import clip_model_config, huggingface_config, no_form, preprocessor_config
from models.huggingface.config import Config
from models.huggingface.tokenizer import write_tokenizer
from models.lora import folded_state_dict, lora_weights
from models.parallel_adapter import parallel_adapters
from models.tensors import write_safetensors

TOLERANCE = 1e-4  # between unit features that two orders of the same arithmetic give
FORMAT = {"format": "pt"}  # transformers refuses safetensors files that do not say so
HUB_IDS = {  # the same weights on the Hugging Face hub
    "clip": "openai/clip-vit-base-patch32",
    "ViT-B-32-quickgelu/openai": "openai/clip-vit-base-patch32",
    "ViT-B-16-quickgelu/openai": "openai/clip-vit-base-patch16",
    "ViT-L-14-quickgelu/openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336-quickgelu/openai": "openai/clip-vit-large-patch14-336",
}


def export_clip(encoder: Encoder, out: Path, vision_only: bool = False) -> Path:
    """Write ``encoder`` to the new folder ``out`` as a ``CLIPModel``, or its vision tower as a ``CLIPVisionModel``; LoRA is folded in.

    The tensors are those of ``encoder`` to the bit, and loading the folder gives them back. Raises :class:`UserError` when ``out``
    exists, and when the architecture or what was tuned in it has no form there.
    """
    _refuse_additions(encoder)
    model_cfg, weights = clip_model_config(encoder), folded_state_dict(encoder.model)
    convert = to_huggingface_vision_state_dict if vision_only else to_huggingface_state_dict
    try:
        tensors = convert(weights, model_cfg)
    except UserError as error:  # a layer scale, a pooling attention ... in otherwise plain towers
        raise no_form(encoder) from error
    _check_features(encoder, model_cfg, weights)
    with new_folder(out) as folder:
        write_safetensors(folder / "model.safetensors", tensors, FORMAT)
        write_json(folder / "config.json", huggingface_config(model_cfg, vision_only))
        write_json(folder / "preprocessor_config.json", preprocessor_config(encoder))
        if not vision_only:
            write_tokenizer(encoder, folder)
    return out


def export_lora(encoder: Encoder, out: Path) -> Path:
    """Write the low-rank updates of ``encoder`` to the new folder ``out`` as a PEFT adapter of the ``CLIPModel``.

    PEFT computes W + alpha / r * B A, so alpha is the scale times the rank. That of L-LoRA is W + scale * B A0, the same with A0 for A.
    The rows of open_clip's packed weight become q_proj, k_proj and v_proj. Raises :class:`UserError` as :func:`export_clip`.
    """
    _refuse_additions(encoder)
    updates = _updates(encoder, clip_model_config(encoder))
    if not updates:
        raise UserError(f"'{encoder.source.name}' carries no LoRA, so there is no adapter to export; use --to huggingface.")
    tensors = {f"base_model.model.{name}.lora_{kind}.weight": pair[kind == "B"] for name, (_, pair) in updates.items() for kind in "AB"}
    scale, (a, _) = next(iter(updates.values()))
    with new_folder(out) as folder:
        write_safetensors(folder / "adapter_model.safetensors", tensors, FORMAT)
        write_json(folder / "adapter_config.json", _adapter_config(encoder, scale, a.shape[0], list(updates)))
    return out


def _updates(encoder: Encoder, model_cfg: Config) -> dict[str, tuple[float, tuple[Tensor, Tensor]]]:
    """Of every updated linear map of the ``CLIPModel``, by the name of its module: the scale, and A [r, in] and B [out, r]."""
    pairs = {pair.open_clip: pair for pair in tensor_pairs(model_cfg)}
    found = {}
    for weight, (module, parameter) in lora_weights(encoder.model).items():
        update: Any = module.parametrizations[parameter][0]  # type: ignore[index]
        names = pairs[weight].huggingface
        for role in update.rows:
            name = names["qkv".index(role)] if len(names) > 1 else names[0]
            found[name.removesuffix(".weight")] = (update.scale, (update.lora_A[role], update.lora_B[role]))
    return found


def _adapter_config(encoder: Encoder, scale: float, rank: int, modules: list[str]) -> dict[str, Any]:
    source = encoder.source
    name = source.architecture if source.kind == "huggingface" else source.name
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": HUB_IDS.get(name, name),
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
        "modules_to_save": None,
    }


def _refuse_additions(encoder: Encoder) -> None:
    """An adapter or a probe stands behind the towers or beside their MLPs, where a Hugging Face CLIP has nothing."""
    behind = any(True for adapter in (encoder.image_adapter, encoder.text_adapter) for _ in adapter.parameters())
    if encoder.probe is not None or behind or parallel_adapters(encoder):
        raise UserError("An adapter or a probe has no Hugging Face form; what was tuned by full, lora, l-lora, bias or attention has one.")


@torch.no_grad()
def _check_features(encoder: Encoder, model_cfg: Config, weights: Mapping[str, Tensor]) -> None:
    """Whether ``model_cfg`` says all of it: a model that is built of it anew must compute the same."""
    model = empty_clip(model_cfg)
    model.load_state_dict(dict(weights), strict=True)
    rebuilt = Encoder(encoder.source, model.eval(), encoder.preprocess, encoder.tokenize)
    size = encoder.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokenize(["a photo of a dog", "the number 5, written by hand"])
    for ours, theirs in (
        (encoder.image_features(images), rebuilt.image_features(images)),
        (encoder.text_features(tokens), rebuilt.text_features(tokens)),
    ):
        if not (ours - theirs).abs().max() < TOLERANCE:
            raise no_form(encoder)


def check_new(out: Path) -> None:
    """A :class:`UserError` when there is something at ``out``; an empty folder is nothing."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"'{out}' exists; name a new folder with --out.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write in, which becomes ``out`` when all went well. Raises as :func:`check_new`, and when it cannot be written."""
    check_new(out)
    with in_the_making(out.absolute()) as making:
        try:
            (folder := making / out.name).mkdir()
            yield folder
            folder.replace(out)
        except OSError as error:
            raise UserError(f"Cannot write '{out}': {error.strerror or error}.") from error
