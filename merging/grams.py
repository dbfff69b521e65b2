"""Second moments of what goes into the weights of a block: the Gram matrices of RegMean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Grams:
    """X^T X of the inputs X [n, in] of a block's weights [out, in], over all tokens of all images that pass through it.

    ``wanted`` are the weights of interest, named as in the block. Weights that read one and the same input share one matrix: open_clip and
    timm pack query, key and value into one weight, others call three maps with one tensor.
    """

    def __init__(self, block: nn.Module, wanted: Collection[str]) -> None:
        self.block, self.wanted = block, wanted
        self._sums: dict[str, Tensor] = {}
        self._tokens: Counter[str] = Counter()
        self._owner: dict[str, str] = {}  # of each weight: the one whose matrix is also its own
        self._last: tuple[Tensor | None, str] = (None, "")

    @property
    def names(self) -> list[str]:
        """The weights that read an input so far."""
        return list(self._owner)

    def mean(self, name: str) -> Tensor:
        """X^T X / n [in, in] of a weight, float32."""
        owner = self._owner[name]
        return self._sums[owner] / self._tokens[owner]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What passes through the block within the block of code is added."""
        handles = []
        for name, module in self.block.named_modules():
            prefix = f"{name}." if name else ""
            if isinstance(getattr(module, "in_proj_weight", None), Tensor):
                handles.append(module.register_forward_pre_hook(self._attention_hook(prefix), with_kwargs=True))
            elif isinstance(module, nn.Linear):
                handles.append(module.register_forward_pre_hook(self._linear_hook(prefix)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._last = (None, "")

    def _linear_hook(self, prefix: str) -> Any:
        return lambda module, inputs: self._add(f"{prefix}weight", inputs[0])

    def _attention_hook(self, prefix: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            self._add(f"{prefix}in_proj_weight", inputs[0])
            if isinstance(module, nn.MultiheadAttention):  # which calls no module for its output's map
                self._add(f"{prefix}out_proj.weight", attended(module, inputs[0], kwargs.get("attn_mask")))

        return hook

    def _add(self, name: str, x: Tensor) -> None:
        if name not in self.wanted:
            return
        if x is self._last[0]:
            self._owner[name] = self._last[1]
            return
        self._owner[name], self._last = name, (x, name)
        rows = x.reshape(-1, x.shape[-1]).float()
        if name not in self._sums:
            self._sums[name] = rows.new_zeros(rows.shape[1], rows.shape[1])
        self._sums[name].addmm_(rows.T, rows)
        self._tokens[name] += len(rows)


def attended(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """What goes into the last map of a self-attention over ``x``, in the shape of ``x``."""
    x = x if attention.batch_first else x.transpose(0, 1)
    packed = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = packed.unflatten(-1, (3, attention.num_heads, attention.head_dim)).transpose(1, 3).unbind(2)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    return mixed if attention.batch_first else mixed.transpose(0, 1)
