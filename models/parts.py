"""The parts of a tower that tunings act on: residual blocks, the projections of attention, the linear layers of MLPs.

Architectures keep these under different names and pack them differently. What follows is told by the shape of the
modules, not by the architecture's name, so that a new architecture built of known modules needs no line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from common.errors import UserError
from models.encoder import Encoder

BLOCKS: dict[str, tuple[str, ...]] = {  # where the residual blocks lie, relative to the tower; the first that fits counts
    "image": (
        r"transformer\.resblocks\.\d+",  # open_clip's VisionTransformer
        r"trunk\.blocks\.\d+",  # timm ViT, EVA, ViTamin
        r"trunk\.(stages|layers)\.\d+\.blocks\.\d+",  # timm ConvNeXt, FastViT (MobileCLIP), Swin
        r"(trunk\.)?layer[1-4]\.\d+",  # open_clip's ModifiedResNet, timm ResNet
    ),
    "text": (
        r"transformer\.resblocks\.\d+",  # open_clip's CLIP and TextTransformer
        r"transformer\.(encoder\.)?(layer|layers|block)\.\d+",  # Hugging Face: BERT and kin, M2M100, T5
    ),
}
BIASES = frozenset({"bias", "in_proj_bias", "q_bias", "v_bias"})  # last parts of parameter names
Role = Literal["q", "k", "v", "mlp"]
QKV: tuple[Role, ...] = ("q", "k", "v")


@dataclass(frozen=True)
class Tower:
    """One side of an encoder. ``prefix`` is that of its parameters' names in ``encoder.model``.

    The text side of CLIP is the model itself; the image side, which lies in it too, is then left out.
    """

    kind: Literal["image", "text"]
    module: nn.Module
    prefix: str
    model_name: str

    @property
    def is_huggingface(self) -> bool:
        """Whether the tower is a transformers model, whose modules are not those of open_clip or timm."""
        return type(self.module).__name__ == "HFTextEncoder"

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules of the tower, in the order of registration, with names relative to it."""
        for name, module in self.module.named_modules():
            if self.prefix or not (name == "visual" or name.startswith("visual.")):
                yield name, module

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of the tower; the scale and bias of the logits belong to neither tower."""
        others = () if self.prefix else ("visual.", "logit_scale", "logit_bias")
        return [parameter for name, parameter in self.module.named_parameters() if not name.startswith(others)]

    def __str__(self) -> str:
        inner = getattr(self.module, "trunk", self.module)
        return f"the {self.kind} tower of '{self.model_name}' ({type(inner).__name__})"


@dataclass(frozen=True)
class Projection:
    """A linear map inside a module: rows ``start:stop`` of the weight ``module.<parameter>`` [out, in]."""

    role: Role
    module: nn.Module
    parameter: str
    start: int
    stop: int

    @property
    def weight(self) -> nn.Parameter:
        """The whole parameter that holds the map."""
        return getattr(self.module, self.parameter)


def image_tower(encoder: Encoder) -> Tower:
    """The image side of ``encoder``."""
    return Tower("image", encoder.image_tower, "visual.", encoder.source.name)


def text_tower(encoder: Encoder) -> Tower:
    """The text side of ``encoder``."""
    module = encoder.text_tower.module
    return Tower("text", module, "" if module is encoder.model else "text.", encoder.source.name)


def towers(encoder: Encoder) -> tuple[Tower, Tower]:
    """Both towers: image, text."""
    return image_tower(encoder), text_tower(encoder)


def named_blocks(tower: Tower) -> dict[str, nn.Module]:
    """The residual blocks from the input on, by their names in ``encoder.model``; none where they cannot be found."""
    modules = dict(tower.named_modules())
    for pattern in BLOCKS[tower.kind]:
        found = {tower.prefix + name: module for name, module in modules.items() if re.fullmatch(pattern, name)}
        if found:
            return found
    return {}


def last_blocks(tower: Tower, count: int) -> list[nn.Module]:
    """The last ``count`` residual blocks of a tower, or all when it has fewer."""
    return list(named_blocks(tower).values())[-count:]


def attention_projections(tower: Tower) -> list[Projection]:
    """Q, K and V of every attention of a tower, the pooling attention of CoCa and SigLIP included.

    None for a tower without attention in its blocks: a convolutional network's attention pooling alone does not make it
    a transformer. None for a Hugging Face tower.
    """
    if not any(projections_in(tower, block) for block in named_blocks(tower).values()):
        return []
    return [projection for _, module in tower.named_modules() for projection in _projections(module)]


def projections_in(tower: Tower, block: nn.Module) -> list[Projection]:
    """Q, K and V of the attentions in one block of ``tower``."""
    if tower.is_huggingface:
        return []
    return [projection for module in block.modules() for projection in _projections(module)]


def mlp_linears(block: nn.Module) -> list[Projection]:
    """The linear layers of a block's MLP: two, or three in a gated one (EVA's SwiGLU)."""
    mlp = getattr(block, "mlp", None)
    if mlp is None:
        return []
    return [_whole("mlp", module) for module in mlp.modules() if isinstance(module, nn.Linear)]


def bias_parameters(block: nn.Module) -> list[nn.Parameter]:
    """Every bias of a block, those of LayerNorm and BatchNorm included."""
    return [parameter for name, parameter in block.named_parameters() if name.rpartition(".")[2] in BIASES]


def no_place(tower: Tower, tuning: str, lacks: str, others: str) -> UserError:
    """The error for a tuning that a tower has no place for, with the ``others`` that work."""
    text = f"{tower} has {lacks}, so '{tuning}' has no place there; use one of: {others}."
    return UserError(text[0].upper() + text[1:])


def _projections(module: nn.Module) -> list[Projection]:
    """Q, K and V that ``module`` itself holds, in whichever of the known forms."""
    if isinstance(getattr(module, "in_proj_weight", None), Tensor):  # nn.MultiheadAttention, open_clip's Attention
        return _packed(QKV, module, "in_proj_weight")
    if isinstance(getattr(module, "q_proj_weight", None), Tensor):  # nn.MultiheadAttention whose keys have another width
        return [_rows(role, module, f"{role}_proj_weight") for role in QKV]
    if isinstance(getattr(module, "qkv", None), nn.Linear) and not getattr(module, "head_first", False):  # timm
        return _packed(QKV, module.qkv, "weight")  # type: ignore[arg-type]
    if isinstance(getattr(module, "q_proj", None), nn.Linear):  # timm EVA-02
        return [_whole(role, getattr(module, f"{role}_proj")) for role in QKV]
    if isinstance(getattr(module, "kv", None), nn.Linear):  # timm AttentionPoolLatent; without ``q`` its latent is the query
        query = getattr(module, "q", None)
        return ([_whole("q", query)] if isinstance(query, nn.Linear) else []) + _packed(("k", "v"), module.kv, "weight")  # type: ignore[arg-type]
    return []


def _rows(role: Role, module: nn.Module, parameter: str) -> Projection:
    return Projection(role, module, parameter, 0, getattr(module, parameter).shape[0])


def _whole(role: Role, linear: nn.Linear) -> Projection:
    return Projection(role, linear, "weight", 0, linear.out_features)


def _packed(roles: Sequence[Role], module: nn.Module, parameter: str) -> list[Projection]:
    """Equal ranges of rows, one for each of ``roles``."""
    width = getattr(module, parameter).shape[0] // len(roles)
    return [Projection(role, module, parameter, i * width, (i + 1) * width) for i, role in enumerate(roles)]
