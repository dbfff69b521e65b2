"""The MLP of a residual block whose weights a router merges for every image, and the place in a tower where it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from common.errors import UserError
from merging.wemoe.linear import RoutedLinear
from merging.wemoe.options import WemoeOptions
from merging.wemoe.router import Router, position_of
from models.blocks import are_known
from models.encoder import Encoder
from models.parts import image_tower, named_blocks

LAYERS = ("c_fc", "c_proj")  # of an MLP in open_clip
VectorsOf = Callable[[str], Tensor]  # the K task vectors [K, *shape] of a tensor, by its name in encoder.model


class RoutedMLP(nn.Module):
    """c_proj(act(c_fc(x))) with both layers' weights θ_0 + Σ_k w_k τ_k, where w = router(x) is the mean over an image's tokens.

    With ``batch_reduce`` it is the mean over all images of the batch, too. ``position`` [P] comes before the features of each token
    that the router sees. Source: Tang et al., ICML 2024.
    """

    position: Tensor | None

    def __init__(
        self, c_fc: RoutedLinear, act: nn.Module, c_proj: RoutedLinear, router: Router, position: Tensor | None, batch_reduce: bool
    ) -> None:
        super().__init__()
        self.c_fc, self.act, self.c_proj = c_fc, act, c_proj
        self.router, self.batch_reduce = router, batch_reduce
        self.register_buffer("position", position)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] of x [B, T, width]."""
        weights = self.weights(x)
        return self.c_proj(self.act(self.c_fc(x, weights)), weights)  # type: ignore[no-any-return]

    def weights(self, x: Tensor) -> Tensor:
        """w: [B, K], or [1, K] where all images of the batch have the same."""
        if self.position is not None:
            x = torch.cat((self.position.to(x.dtype).expand(*x.shape[:-1], -1), x), dim=-1)
        weights: Tensor = self.router(x)
        return weights.mean(dim=0, keepdim=True) if self.batch_reduce else weights


def routed_names(encoder: Encoder) -> list[str]:
    """The names in ``encoder.model`` of the tensors that are routed: weight and bias of both layers of the image tower's MLPs.

    Raises :class:`UserError` for a tower that is not open_clip's vision transformer.
    """
    return [f"{block}.mlp.{layer}.{kind}" for block in _blocks(encoder) for layer in LAYERS for kind in ("weight", "bias")]


def install(encoder: Encoder, vectors: VectorsOf, tasks: int, options: WemoeOptions) -> None:
    """Route the MLPs of the image tower of ``encoder``, in place, between its own weights and ``vectors`` of K ``tasks``.

    Afterwards the routers' parameters train and nothing else. Routers are drawn by ``options.seed``, block after block.
    """
    encoder.requires_grad_(False)
    blocks = _blocks(encoder)
    routers = _routers([block.mlp.c_fc.in_features for block in blocks.values()], tasks, options)
    for number, ((name, block), router) in enumerate(zip(blocks.items(), routers, strict=True)):
        mlp = block.mlp
        c_fc, c_proj = (_routed(getattr(mlp, layer), f"{name}.mlp.{layer}", vectors) for layer in LAYERS)
        position = position_of(number, options.position_dim) if options.position_dim else None
        block.mlp = RoutedMLP(c_fc, mlp.gelu, c_proj, router, position, options.batch_reduce).to(encoder.device)


def routers_of(encoder: Encoder) -> dict[str, nn.Parameter]:
    """The routers' parameters by their names in ``encoder.model``; a router that all blocks share is under the first one's name."""
    return {name: parameter for name, parameter in encoder.model.named_parameters() if ".mlp.router." in name}


def _blocks(encoder: Encoder) -> dict[str, Any]:
    tower = image_tower(encoder)
    blocks = named_blocks(tower)
    usable = isinstance(tower.module, VisionTransformer) and are_known(list(blocks.values()))
    if not usable or any(_has_unknown_mlp(block) for block in blocks.values()):
        raise UserError(f"WEMoE routes the MLPs of open_clip's residual attention blocks, which {tower} has not.")
    return blocks


def _has_unknown_mlp(block: Any) -> bool:
    """Whether the MLP is not the plain one, or tokens come before images."""
    linear = all(type(getattr(block.mlp, layer, None)) is nn.Linear for layer in LAYERS)
    return not (linear and hasattr(block.mlp, "gelu") and block.attn.batch_first)


def _routers(widths: Sequence[int], tasks: int, options: WemoeOptions) -> list[Router]:
    """A router for each block, or the same one again and again."""
    generator = torch.Generator().manual_seed(options.seed)

    def draw(width: int) -> Router:
        return Router(width + options.position_dim, tasks, options.router_layers, options.scaling, generator)

    return [draw(widths[0])] * len(widths) if options.shared_gate else [draw(width) for width in widths]


def _routed(linear: nn.Linear, name: str, vectors: VectorsOf) -> RoutedLinear:
    weight, bias = (torch.cat((own.detach().cpu()[None], vectors(f"{name}.{kind}"))) for kind, own in linear.named_parameters())
    return RoutedLinear(weight, bias)
