"""Image towers from their patches on: what pseudo-patches are put into instead of an image."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor

from common.errors import UserError
from models import blocks
from models.encoder import Encoder


class ImageTower:
    """The image side of an encoder, from the N patches that its patch embedding makes of an image.

    A view without parameters of its own. open_clip's and timm's vision transformers take patches; others (ResNet, ConvNeXt,
    Swin) do not, and all but ``takes_patches`` raises :class:`UserError` then.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._name = encoder.source.name
        self.module: Any = encoder.image_tower
        self.trunk: Any = getattr(self.module, "trunk", self.module)

    @property
    def takes_patches(self) -> bool:
        """Whether the tower turns an image into patches, and goes on in a way that is known here."""
        return isinstance(self.module, VisionTransformer) or (isinstance(self.module, TimmModel) and _is_known(self.trunk))

    @property
    def n_patches(self) -> int:
        """N, the patches of an image."""
        self._check()
        if isinstance(self.module, VisionTransformer):
            return self.module.grid_size[0] * self.module.grid_size[1]
        return int(self.trunk.patch_embed.num_patches)

    @property
    def width(self) -> int:
        """Width of a patch."""
        self._check()
        return int(self.module.conv1.out_channels if isinstance(self.module, VisionTransformer) else self.trunk.embed_dim)

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """Patches [B, N, width], row by row, of preprocessed images [B, 3, S, S]: before class token and positions."""
        self._check()
        if isinstance(self.module, VisionTransformer):
            return self.module.conv1(pixels).flatten(2).transpose(1, 2)
        return self.trunk.patch_embed(pixels).reshape(len(pixels), -1, self.width)  # a grid where sizes are dynamic

    def encode_patches(self, patches: Tensor) -> Tensor:
        """Features [B, D], not normalised, of patches [B, N, width]."""
        self._check()
        if isinstance(self.module, VisionTransformer):
            return _encode_open_clip(self.module, patches)
        return self.module.head(_encode_timm(self.trunk, patches))

    def _check(self) -> None:
        if not self.takes_patches:
            kind = type(self.trunk).__name__
            raise UserError(f"The image tower of '{self._name}' ({kind}) is no vision transformer, so it has no place for pseudo-patches.")


def _is_known(trunk: Any) -> bool:
    """Whether a timm network makes its features of patches in the steps repeated here; a subclass may have others."""
    return any(getattr(type(trunk), "forward_features", None) is kind.forward_features for kind in (TimmVisionTransformer, Eva))


def _encode_open_clip(tower: VisionTransformer, patches: Tensor) -> Tensor:
    token = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([token, patches], dim=1)
    x = tower.ln_pre(tower.patch_dropout(x + tower.positional_embedding.to(x.dtype)))
    if tower.attn_pool is None and tower.pool_type == "tok" and blocks.are_known(tower.transformer.resblocks):
        pooled = tower.ln_post(blocks.read_one(tower.transformer.resblocks, x, position=0))
    else:
        pooled, _ = tower._pool(tower.transformer(x))
    return pooled if tower.proj is None else pooled @ tower.proj


def _encode_timm(trunk: Any, patches: Tensor) -> Tensor:
    if trunk.dynamic_img_size:
        patches = patches.unflatten(1, trunk.patch_embed.grid_size)
    if not isinstance(trunk, Eva):
        x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(patches)))
        return trunk.forward_head(trunk.norm(trunk.blocks(x)))
    x, rope = trunk._pos_embed(patches)
    x = trunk.norm_pre(x)
    for number, block in enumerate(trunk.blocks):
        x = block(x, rope=rope[number] if rope is not None and trunk.rope_mixed else rope)
    return trunk.forward_head(trunk.norm(x))
