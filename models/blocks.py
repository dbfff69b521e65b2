"""The residual attention blocks of open_clip's transformers, run only at the positions whose output is read.

The last block is asked for one position, so its queries, its MLP and all that follows are those of that position alone.
Positions whose input never changes enter as keys and values that were computed once. Both give what the whole run gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

FEW_PAIRS = 32  # of positions, for which PyTorch's kernels on a CPU cost twice as much as the plain formula
KeysValues = tuple[Tensor, Tensor]  # of one block, each [B or 1, S, heads, width of a head]


def are_known(blocks: Sequence[nn.Module]) -> bool:
    """Whether all ``blocks`` are of the kind that this module runs; others, as those with adapters, have to run themselves."""
    plain = all(type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") and not block._forward_hooks for block in blocks)
    return plain and all(type(block.mlp) is nn.Sequential for block in blocks)  # a routed MLP looks at all positions


def read_one(
    blocks: Sequence[nn.Module], x: Tensor, position: int, mask: Tensor | None = None, constant: Sequence[KeysValues] | None = None
) -> Tensor:
    """What ``blocks`` make of ``x`` [B, L, width] at ``position``: [B, width].

    ``constant`` has per block the keys and values of S positions that all others see too. ``mask`` [L, S + L] is added to
    the attention's logits, None where every position sees every other. The keys and values of ``constant`` come first.
    """
    contexts: Sequence[KeysValues | None] = constant or [None] * len(blocks)
    for block, context in zip(blocks[:-1], contexts[:-1], strict=True):
        x, _ = _step(block, x, context, mask)
    last = slice(position, position + 1)
    return _step(blocks[-1], x, contexts[-1], None if mask is None else mask[last], last)[0][:, 0]


def keys_and_values(blocks: Sequence[nn.Module], x: Tensor, mask: Tensor | None = None) -> list[KeysValues]:
    """Per block the keys and values of ``x`` [B, L, width], with an additive ``mask`` [L, L] between its positions."""
    found = []
    for block in blocks:
        x, context = _step(block, x, None, mask)
        found.append(context)
    return found


def _step(block: Any, x: Tensor, context: KeysValues | None, mask: Tensor | None, rows: slice | None = None) -> tuple[Tensor, KeysValues]:
    """One block at the positions ``rows`` (None: all), and the keys and values of all positions of ``x``."""
    q, k, v = _project(block.attn, block.ln_1(x), rows)
    own = (k, v)
    if context is not None:
        k, v = (torch.cat([old.expand(len(x), -1, -1, -1), new], dim=1) for old, new in zip(context, own, strict=True))
    x = x if rows is None else x[:, rows]
    x = x + block.ls_1(block.attn.out_proj(_attend(q, k, v, mask).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x))), own


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for each head: [B, L, heads, d], of keys and values [B, S, heads, d]."""
    mask = None if mask is None else mask.to(q.dtype)
    if q.device.type == "cpu" and q.shape[1] * k.shape[1] <= FEW_PAIRS:
        logits = (q[:, :, None] * k[:, None]).sum(dim=-1) * q.shape[-1] ** -0.5
        weights = (logits if mask is None else logits + mask[..., None]).softmax(dim=2).to(v.dtype)
        return (weights[..., None] * v[:, None]).sum(dim=2)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask).transpose(1, 2)


def _project(attention: nn.MultiheadAttention, x: Tensor, rows: slice | None) -> tuple[Tensor, ...]:
    """Queries of the positions ``rows``, keys and values of all: each [B, L, heads, width of a head]."""
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
    heads = (attention.num_heads, attention.head_dim)
    if rows is None:
        return F.linear(x, weight, bias).unflatten(-1, (3, *heads)).unbind(2)
    k, v = F.linear(x, weight[width:], bias[width:]).unflatten(-1, (2, *heads)).unbind(2)
    return F.linear(x[:, rows], weight[:width], bias[:width]).unflatten(-1, heads), k, v
