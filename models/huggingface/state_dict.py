"""The tensors of a Hugging Face CLIP under open_clip's names, and back, exact to the bit.

One table of :class:`TensorPair`, read in both directions, says which tensors are the same, which are transposed (the
projections) and which are packed (query, key and value).

Spellings of the vision tower alone (``CLIPVisionModel``): names begin with ``vision_model.`` in files that transformers
4 wrote and have no prefix in those of transformers 5; :func:`convert_vision_state_dict` reads both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from common.errors import UserError
from models.huggingface.config import Config

Shape = tuple[int, ...]

NAMED = 3  # tensors that an error names before it only counts


@dataclass(frozen=True)
class TensorPair:
    """One open_clip tensor and the Hugging Face tensor, or tensors stacked along the first axis, that it equals."""

    open_clip: str
    huggingface: tuple[str, ...]
    shape: Shape  # of each Hugging Face tensor
    transposed: bool = False

    @property
    def open_clip_shape(self) -> Shape:
        """Shape of the open_clip tensor."""
        if self.transposed:
            return self.shape[::-1]
        return (self.shape[0] * len(self.huggingface), *self.shape[1:]) if self.shape else ()

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Hugging Face to open_clip; a tensor that is the same in both is returned as it is, not copied."""
        whole = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
        return whole.t().contiguous() if self.transposed else whole

    def split(self, whole: Tensor) -> list[Tensor]:
        """open_clip to Hugging Face, the inverse of :meth:`join`."""
        if self.transposed:
            return [whole.t().contiguous()]
        count = len(self.huggingface)
        return [part.clone() for part in whole.chunk(count)] if count > 1 else [whole]


def tensor_pairs(model_cfg: Config) -> list[TensorPair]:
    """The whole table of a ``CLIPModel`` whose open_clip configuration is ``model_cfg``."""
    text_width, embed_dim = _text_tower(model_cfg).width, model_cfg["embed_dim"]
    return [
        *vision_pairs(model_cfg),
        _image_projection(model_cfg),
        *_text_pairs(model_cfg),
        TensorPair("text_projection", ("text_projection.weight",), (embed_dim, text_width), transposed=True),
        TensorPair("logit_scale", ("logit_scale",), ()),
    ]


def vision_pairs(model_cfg: Config) -> list[TensorPair]:
    """The table of the vision tower without its projection, in the spelling with the prefix ``vision_model.``."""
    tower = _vision_tower(model_cfg)
    width, patch = tower.width, tower.patch_size
    tokens = (tower.image_size // patch) ** 2 + 1
    own = [
        TensorPair("class_embedding", ("embeddings.class_embedding",), (width,)),
        TensorPair("conv1.weight", ("embeddings.patch_embedding.weight",), (width, 3, patch, patch)),
        TensorPair("positional_embedding", ("embeddings.position_embedding.weight",), (tokens, width)),
        *_same("ln_pre", "pre_layrnorm", (width,)),
        *_same("ln_post", "post_layernorm", (width,)),
    ]
    return _prefixed([*own, *_layers(tower)], "visual.", "vision_model.")


def _text_pairs(model_cfg: Config) -> list[TensorPair]:
    tower = _text_tower(model_cfg)
    own = [
        TensorPair("token_embedding.weight", ("embeddings.token_embedding.weight",), (tower.vocab_size, tower.width)),
        TensorPair("positional_embedding", ("embeddings.position_embedding.weight",), (tower.context_length, tower.width)),
        *_same("ln_final", "final_layer_norm", (tower.width,)),
    ]
    return _prefixed([*own, *_layers(tower)], "", "text_model.")


def _image_projection(model_cfg: Config) -> TensorPair:
    shape = (model_cfg["embed_dim"], _vision_tower(model_cfg).width)
    return TensorPair("visual.proj", ("visual_projection.weight",), shape, transposed=True)


def _layers(tower: Any) -> list[TensorPair]:
    rows = _layer(tower.width, int(tower.width * tower.mlp_ratio))
    return [
        pair for index in range(tower.layers) for pair in _prefixed(rows, f"transformer.resblocks.{index}.", f"encoder.layers.{index}.")
    ]


def _layer(width: int, hidden: int) -> list[TensorPair]:
    """One transformer layer; open_clip keeps query, key and value in one tensor, in this order."""
    weights, biases = (tuple(f"self_attn.{part}_proj.{kind}" for part in "qkv") for kind in ("weight", "bias"))
    return [
        *_same("ln_1", "layer_norm1", (width,)),
        TensorPair("attn.in_proj_weight", weights, (width, width)),
        TensorPair("attn.in_proj_bias", biases, (width,)),
        *_same("attn.out_proj", "self_attn.out_proj", (width, width)),
        *_same("ln_2", "layer_norm2", (width,)),
        *_same("mlp.c_fc", "mlp.fc1", (hidden, width)),
        *_same("mlp.c_proj", "mlp.fc2", (width, hidden)),
    ]


def _same(open_clip: str, huggingface: str, shape: Shape) -> list[TensorPair]:
    """Weight (of this shape) and bias (of its first dimension) of a module that both libraries have."""
    return [
        TensorPair(f"{open_clip}.weight", (f"{huggingface}.weight",), shape),
        TensorPair(f"{open_clip}.bias", (f"{huggingface}.bias",), shape[:1]),
    ]


def _prefixed(pairs: Iterable[TensorPair], open_clip: str, huggingface: str) -> list[TensorPair]:
    return [
        replace(pair, open_clip=open_clip + pair.open_clip, huggingface=tuple(huggingface + name for name in pair.huggingface))
        for pair in pairs
    ]


def _vision_tower(model_cfg: Config) -> Any:
    tower = CLIPVisionCfg(**model_cfg["vision_cfg"])
    plain = isinstance(tower.layers, int) and isinstance(tower.image_size, int) and tower.pool_type == "tok"
    if tower.timm_model_name or not plain:
        raise UserError("Only CLIP's own vision transformer has a Hugging Face CLIP form; this model has another vision tower.")
    return tower


def _text_tower(model_cfg: Config) -> Any:
    tower = CLIPTextCfg(**model_cfg["text_cfg"])
    if tower.hf_model_name:
        raise UserError(
            f"Only CLIP's own text transformer has a Hugging Face CLIP form; this model's text tower is '{tower.hf_model_name}'."
        )
    return tower


def convert_state_dict(huggingface: Mapping[str, Tensor], model_cfg: Config, origin: str = "The Hugging Face weights") -> dict[str, Tensor]:
    """open_clip's state dict for the tensors of a ``CLIPModel``; dtypes stay, unchanged tensors are not copied.

    Raises :class:`UserError`, which begins with ``origin``, for missing, unexpected or wrongly shaped tensors.
    """
    return _join(huggingface, tensor_pairs(model_cfg), origin)


def convert_vision_state_dict(
    huggingface: Mapping[str, Tensor], model_cfg: Config, origin: str = "The Hugging Face weights"
) -> dict[str, Tensor]:
    """As :func:`convert_state_dict` for a ``CLIPVisionModel`` in either spelling: the tensors ``visual.*``.

    ``visual.proj`` is among them only where there is one (``CLIPVisionModelWithProjection``).
    """
    named = {_with_vision_prefix(name): tensor for name, tensor in huggingface.items()}
    projection = _image_projection(model_cfg)
    with_projection = [projection] if projection.huggingface[0] in named else []
    return _join(named, [*vision_pairs(model_cfg), *with_projection], origin)


def to_huggingface_state_dict(
    open_clip: Mapping[str, Tensor], model_cfg: Config, origin: str = "The open_clip weights"
) -> dict[str, Tensor]:
    """The tensors of a ``CLIPModel`` for open_clip's state dict: the inverse of :func:`convert_state_dict`, to the bit."""
    return _split(open_clip, tensor_pairs(model_cfg), origin)


def to_huggingface_vision_state_dict(
    open_clip: Mapping[str, Tensor], model_cfg: Config, prefix: str = "vision_model.", origin: str = "The open_clip weights"
) -> dict[str, Tensor]:
    """The tensors of a ``CLIPVisionModel``, whose names begin with ``prefix`` (transformers 5 writes none).

    Reads ``visual.*``; the text tower and ``visual.proj``, which a ``CLIPVisionModel`` has not, are left out.
    """
    visual = {name: tensor for name, tensor in open_clip.items() if name.startswith("visual.") and name != "visual.proj"}
    converted = _split(visual, vision_pairs(model_cfg), origin)
    return {prefix + name.removeprefix("vision_model."): tensor for name, tensor in converted.items()}


def _with_vision_prefix(name: str) -> str:
    bare = name.startswith(("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."))
    return f"vision_model.{name}" if bare else name


def _join(huggingface: Mapping[str, Tensor], pairs: Sequence[TensorPair], origin: str) -> dict[str, Tensor]:
    """``position_ids`` are constants (0, 1, 2, ...) that old versions of transformers stored."""
    given = {name: tensor for name, tensor in huggingface.items() if not name.endswith("embeddings.position_ids")}
    _check(given, {name: pair.shape for pair in pairs for name in pair.huggingface}, origin)
    return {pair.open_clip: pair.join([given[name] for name in pair.huggingface]) for pair in pairs}


def _split(open_clip: Mapping[str, Tensor], pairs: Sequence[TensorPair], origin: str) -> dict[str, Tensor]:
    _check(open_clip, {pair.open_clip: pair.open_clip_shape for pair in pairs}, origin)
    return {name: part for pair in pairs for name, part in zip(pair.huggingface, pair.split(open_clip[pair.open_clip]), strict=True)}


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Shape], origin: str) -> None:
    common = [name for name in wanted if name in given]
    problems = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "wrongly shaped": [
            f"{name} {list(given[name].shape)} instead of {list(wanted[name])}" for name in common if given[name].shape != wanted[name]
        ],
        "not floating-point": [f"{name} {given[name].dtype}" for name in common if not given[name].is_floating_point()],
    }
    told = [f"{problem}: {_first(names)}" for problem, names in problems.items() if names]
    if told:
        raise UserError(f"{origin} do not fit the model's configuration ({'; '.join(told)}).")


def _first(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
