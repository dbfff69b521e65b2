"""RegMean's textbook formula: inputs of whole towers by forward hooks on the modules before, Gram matrices, an inverse, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import small

BLOCKS = {  # the matrices of a block, and the module whose output they read; the output of attention's heads is computed
    small.clip: {"attn.in_proj_weight": "ln_1", "attn.out_proj.weight": None, "mlp.c_fc.weight": "ln_2", "mlp.c_proj.weight": "mlp.gelu"},
    small.slip: {"attn.qkv.weight": "norm1", "attn.proj.weight": None, "mlp.fc1.weight": "norm2", "mlp.fc2.weight": "mlp.act"},
}
PREFIX = {small.clip: "transformer.resblocks.", small.slip: "trunk.blocks."}


@torch.no_grad()
def read_by(tower: nn.Module, images: Tensor, build: Callable[..., nn.Module]) -> dict[str, Tensor]:
    """What each matrix of the blocks of ``tower`` reads, [n, in], for ``images``, by the matrix's name."""
    found: dict[str, Tensor] = {}
    for number in range(3):
        block = tower.get_submodule(f"{PREFIX[build]}{number}")
        for weight, before in BLOCKS[build].items():
            name = f"{PREFIX[build]}{number}.{weight}"
            if before is not None:
                block.get_submodule(before).register_forward_hook(_keep(found, name))
    tower(images)
    for number in range(3):
        block = tower.get_submodule(f"{PREFIX[build]}{number}")
        packed, out = list(BLOCKS[build])[:2]
        x = found[f"{PREFIX[build]}{number}.{packed}"]
        bias = packed.replace("_weight", "_bias").replace(".weight", ".bias")
        heads = 2
        q, k, v = F.linear(x, block.get_parameter(packed), block.get_parameter(bias)).chunk(3, dim=-1)
        mixed = [
            ((a @ b.mT) / a.shape[-1] ** 0.5).softmax(dim=-1) @ c
            for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)
        ]
        found[f"{PREFIX[build]}{number}.{out}"] = torch.cat(mixed, dim=-1)
    return {name: x.flatten(0, -2) for name, x in found.items()}


def merged_weight(inputs: Sequence[Tensor], weights: Sequence[Tensor], ratio: float) -> Tensor:
    """((Σ_k G^_k)^{-1} Σ_k G^_k W_k^T)^T with G^ = ratio G + (1 - ratio) diag(G), G = X^T X / n."""
    below, above = torch.zeros(()), torch.zeros(())
    for x, weight in zip(inputs, weights, strict=True):
        gram = x.double().T @ x.double() / len(x)
        shrunk = ratio * gram + (1 - ratio) * torch.diag(torch.diag(gram))
        below, above = below + shrunk, above + shrunk @ weight.double().T
    return (torch.linalg.inv(below) @ above).T


def _keep(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[name] = output

    return hook
