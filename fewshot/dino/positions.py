"""Vision transformers at another size of image than they were made for, for one pass: their position embeddings interpolated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from models.encoder import Encoder
from models.image_tower import ImageTower

Grid = tuple[int, int]  # patches from top to bottom and from left to right
NUDGE = 0.1  # patches, so that rounding never loses one


def interpolated(positions: Tensor, old: Grid, new: Grid) -> Tensor:
    """Position embeddings [P + h w, D] of the grid ``old`` = (h, w) for the grid ``new``; the first P, of tokens, stay as they are.

    Bicubic, by factors (new + 0.1) / old as Caron et al. (ICCV 2021) released it. For ``new`` = ``old`` they are the stored ones.
    """
    if new == old:
        return positions
    count = old[0] * old[1]
    tokens, patches = positions[:-count], positions[-count:]
    image = patches.float().T.reshape(1, -1, *old)
    factors = [(after + NUDGE) / before for before, after in zip(old, new, strict=True)]
    resized = F.interpolate(image, scale_factor=factors, mode="bicubic")
    if resized.shape[-2:] != new:
        raise AssertionError(f"positions of {old} became {tuple(resized.shape[-2:])} instead of {new}")
    return torch.cat([tokens, resized[0].flatten(1).T.to(tokens.dtype)])


def patch_size(encoder: Encoder) -> Grid:
    """Height and width of a patch in pixels. Raises :class:`UserError` when the image tower is no known vision transformer."""
    tower = ImageTower(encoder)
    if not tower.takes_patches:
        raise UserError(
            f"The image tower of '{encoder.source.name}' ({type(tower.trunk).__name__}) takes images of its own size only; "
            "use --local-crops-number 0."
        )
    height, width = (tower.trunk if isinstance(tower.trunk, VisionTransformer) else tower.trunk.patch_embed).patch_size
    return int(height), int(width)


@contextmanager
def image_size(encoder: Encoder, height: int, width: int) -> Iterator[None]:
    """Within the block the image tower takes pixels [B, 3, height, width], whole patches; at its own size nothing is changed.

    Learnt positions are interpolated (:func:`interpolated`), rotary ones made for the other grid. No gradient reaches either.
    """
    if (height, width) == (encoder.image_size, encoder.image_size):
        yield
        return
    high, wide = patch_size(encoder)
    if (height % high, width % wide) != (0, 0):
        raise ValueError(f"images of {height} x {width} are not whole patches of {high} x {wide}")
    grid, trunk = (height // high, width // wide), ImageTower(encoder).trunk
    with _open_clip(trunk, grid) if isinstance(trunk, VisionTransformer) else _timm(trunk, grid, (height, width)):
        yield


@contextmanager
def _open_clip(trunk: Any, grid: Grid) -> Iterator[None]:
    """An open_clip transformer for another grid: it adds whatever positions it has to as many patches."""
    positions = interpolated(trunk.positional_embedding.detach(), trunk.grid_size, grid)
    with _attributes(trunk, positional_embedding=_fixed(positions)):
        yield


@contextmanager
def _timm(trunk: Any, grid: Grid, size: tuple[int, int]) -> Iterator[None]:
    """A timm transformer for another grid; one whose sizes are dynamic then finds its positions made for the patches that come."""
    embed, rope = trunk.patch_embed, getattr(trunk, "rope", None)
    old = embed.grid_size
    with ExitStack() as changes:
        changes.enter_context(_attributes(embed, img_size=size, grid_size=grid, num_patches=grid[0] * grid[1]))
        if trunk.pos_embed is not None:
            positions = interpolated(trunk.pos_embed.detach()[0], old, grid)[None]
            changes.enter_context(_attributes(trunk, pos_embed=_fixed(positions)))
        if getattr(rope, "feat_shape", None) is not None:
            changes.enter_context(_rotary(rope, grid))
        yield


@contextmanager
def _rotary(rope: Any, grid: Grid) -> Iterator[None]:
    """Rotary positions for another grid; those that were there return as they were."""
    earlier = {name: getattr(rope, name) for name in ("feat_shape", "bands", "pos_embed")}
    try:
        rope.update_feat_shape(list(grid))
        yield
    finally:
        for name, value in earlier.items():
            setattr(rope, name, value)


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


@contextmanager
def _attributes(module: nn.Module, **values: Any) -> Iterator[None]:
    """Attributes of a module that have other values within the block."""
    earlier = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in earlier.items():
            setattr(module, name, value)
