"""The last linear map of each tower, from what its transformer gives to the space that images and texts share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from common.errors import UserError
from models.encoder import Encoder

Place = tuple[nn.Module, str]  # a module and the name under which it holds its projection


def image_projection(encoder: Encoder) -> Tensor | None:
    """The image tower's projection [D, width], out times in; None where the tower ends without one (SigLIP).

    A bias is no part of it. Raises :class:`UserError` for a tower whose end is of no known kind.
    """
    return _matrix(_image_place(encoder))


def text_projection(encoder: Encoder) -> Tensor | None:
    """The text tower's projection [D, width], as :func:`image_projection`. SigLIP's has a bias, which is no part of it."""
    return _matrix(_text_place(encoder))


@contextmanager
def without_projections(encoder: Encoder) -> Iterator[None]:
    """Inside, ``encode_image`` and ``encode_text`` give unit rows of what goes into the projections.

    Adapters, which act behind the projections, are left out too. A tower without projection gives what it always gives.
    The encoder is as before when the block is left, however it is left. Raises :class:`UserError` as the functions above.
    """
    places = [place for place in (_image_place(encoder), _text_place(encoder)) if place is not None]
    kept = [(*place, getattr(*place)) for place in [*places, (encoder, "image_adapter"), (encoder, "text_adapter")]]
    encoder.__dict__.pop("_embed_dim", None)  # it is another one inside
    try:
        for module, name, projection in kept:
            setattr(module, name, _identity(name, projection))
        yield
    finally:
        for module, name, projection in kept:
            setattr(module, name, projection)
        encoder.__dict__.pop("_embed_dim", None)


def _image_place(encoder: Encoder) -> Place | None:
    tower: Any = encoder.image_tower
    if isinstance(tower, VisionTransformer):
        return None if tower.proj is None else (tower, "proj")
    if isinstance(tower, ModifiedResNet):
        return tower.attnpool, "c_proj"
    if not isinstance(tower, TimmModel):
        raise _unknown(encoder, "image", tower)
    if isinstance(tower.head, nn.Sequential) and not len(tower.head):  # the projection, if any, is timm's own classifier
        return _end(encoder, "image", tower.trunk, tower.trunk.get_classifier())
    return _end(encoder, "image", tower, tower.head)


def _text_place(encoder: Encoder) -> Place | None:
    tower = encoder.text_tower
    if tower.is_open_clip:
        return None if tower.module.text_projection is None else (tower.module, "text_projection")
    return _end(encoder, "text", tower.module, tower.module.proj)


def _end(encoder: Encoder, kind: str, tower: nn.Module, head: nn.Module) -> Place | None:
    """Where in ``tower`` the linear layer lies with which ``head`` ends: itself, or the last of a sequence."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    if isinstance(last, nn.Identity):
        return None
    if not isinstance(last, nn.Linear):
        raise _unknown(encoder, kind, last)
    path = next(name for name, module in tower.named_modules() if module is last)
    parent, _, name = path.rpartition(".")
    return tower.get_submodule(parent), name


def _unknown(encoder: Encoder, kind: str, module: nn.Module) -> UserError:
    return UserError(f"The {kind} tower of '{encoder.source.name}' does not end in a linear projection but in a {type(module).__name__}.")


def _matrix(place: Place | None) -> Tensor | None:
    if place is None:
        return None
    projection = getattr(*place)
    return projection.weight.detach() if isinstance(projection, nn.Linear) else projection.detach().T


def _identity(name: str, projection: nn.Module | Tensor) -> nn.Module | None:
    """What leaves features as they are in the place of ``projection``."""
    if name == "c_proj":  # attention pooling reads weight and bias instead of calling the layer
        return _unit_linear(projection)
    if name == "text_projection" or isinstance(projection, Tensor):
        return None  # open_clip knows towers without one
    return nn.Identity()


def _unit_linear(linear: Any) -> nn.Linear:
    width = linear.in_features
    unit = nn.Linear(width, width).to(linear.weight)
    with torch.no_grad():
        unit.weight.copy_(torch.eye(width))
        unit.bias.zero_()
    return unit
