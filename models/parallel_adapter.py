"""Adapters beside the MLPs of a vision transformer, which can be switched off: one model for adapted and original features.

With x the stream of a block after its attention, before the second LayerNorm, the block's output becomes

    x + MLP(LN(x)) + s (W_up dropout(relu(W_down x + b_down)) + b_up)

in every block of the image tower, with a bottleneck of 64: AdaptFormer (Chen et al., NeurIPS 2022, equation 3), as the
intra-modal overlap paper trains them (Kravets and Namboodiri, BMVC 2024). W_up and both biases start at 0, so that the encoder
starts as it was, to the bit.

Two hooks on a block put the adapter there: one sees x where the block's second half takes it, one adds to the block's output. So no
block is rewritten, and what is switched off is the block itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoder import Encoder
from models.parts import Tower, image_tower, named_blocks, no_place, projections_in

NAME = "parallel_adapter"  # of the adapter in its block
BLOCK = re.compile(r"visual\.(transformer\.resblocks|trunk\.blocks)\.\d+")  # of vision transformers, whose stream keeps its shape
SECOND_NORMS = ("ln_2", "norm2")
ON, OFF, FORK, HALF = "on", "off", "fork", "half"  # fork and half: see adapted_and_original


class ParallelAdapter(nn.Module):
    """``scale * (W_up dropout(relu(W_down x + b_down)) + b_up)`` of a stream x [B, L, width].

    W_down [bottleneck, width] starts uniform in +-1/sqrt(width) (Kaiming-uniform with a = sqrt(5)), drawn from ``generator``;
    all else starts at 0. Dropout is active only where :func:`dropout_of` gives it keys.
    """

    def __init__(self, width: int, bottleneck: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        with torch.no_grad():
            self.down.weight.uniform_(-(width**-0.5), width**-0.5, generator=generator)
            for parameter in (self.down.bias, self.up.weight, self.up.bias):
                parameter.zero_()
        self.mode = ON
        self.keys: Tensor | None = None
        self._stream: Tensor | None = None

    def forward(self, stream: Tensor) -> Tensor:
        """The update [B, L, width] of a stream [B, L, width]."""
        hidden = F.relu(self.down(stream))
        if self.keys is not None and self.dropout:
            hidden = hidden * keyed_dropout(self.keys, hidden.shape[1:], self.dropout).to(hidden.dtype)
        return self.scale * self.up(hidden)

    def look(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Before the block's second half: keep the stream that it is about to take."""
        if self.mode != OFF:
            self._stream = args[0]

    def add(self, block: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """After the block: add the update to its output; None leaves the output as it is."""
        stream, self._stream = self._stream, None
        if self.mode == OFF or stream is None:
            return None
        if self.mode == HALF:
            adapted, original = output.chunk(2)
            return torch.cat([adapted + self(stream[: len(adapted)]).to(output.dtype), original])
        adapted = output + self(stream).to(output.dtype)
        return torch.cat([adapted, output]) if self.mode == FORK else adapted


def keyed_dropout(keys: Tensor, shape: torch.Size | tuple[int, ...], probability: float) -> Tensor:
    """Factors [B, *shape], 0 with ``probability`` and else 1 / (1 - probability), that depend on ``keys`` int64 [B] alone.

    So the same image of the same step loses the same units in whatever batch or process it is. Each element hashes its key and
    place by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); of the result the upper 24 bits are compared.
    """
    count = torch.Size(shape).numel()
    places = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64)
    mixed = _mixed(_mixed(keys)[:, None] + places * _GOLDEN)
    kept = ((mixed >> 40) & 0xFFFFFF) >= round(probability * 2**24)
    return kept.reshape(len(keys), *shape).float() / (1 - probability)


_GOLDEN, _FIRST, _SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # as int64


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, which wraps around; its shifts are of unsigned numbers."""
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * _FIRST
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * _SECOND
    return bits ^ ((bits >> 31) & (2**33 - 1))


def add_parallel_adapters(encoder: Encoder, bottleneck: int = 64, scale: float = 0.03, dropout: float = 0.1, seed: int = 0) -> None:
    """Put an adapter into every block of the image tower; on ViT-B/16, 12 of 99,136 parameters.

    What is drawn depends on ``seed`` and on the encoder's shape only. Raises :class:`UserError`, before anything is changed, when the
    image tower is no vision transformer.
    """
    if parallel_adapters(encoder):
        raise ValueError("the encoder has parallel adapters already")
    generator = torch.Generator().manual_seed(seed)
    for block, taker, width in _places(image_tower(encoder)):
        adapter = ParallelAdapter(width, bottleneck, scale, dropout, generator).to(encoder.device).eval()
        block.add_module(NAME, adapter)
        taker.register_forward_pre_hook(adapter.look)
        block.register_forward_hook(adapter.add)


def parallel_adapters(encoder: Encoder) -> dict[str, ParallelAdapter]:
    """The adapters of ``encoder`` from the input on, by their names in it."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, ParallelAdapter)}


def adapter_parameters(encoder: Encoder) -> dict[str, nn.Parameter]:
    """The parameters of the adapters by their names in ``encoder``, whether they train or not: what a checkpoint holds."""
    return {name: parameter for name, parameter in encoder.named_parameters() if f".{NAME}." in name}


@contextmanager
def without_adapters(encoder: Encoder) -> Iterator[None]:
    """Within the block ``encoder`` computes exactly what it did before it had adapters."""
    with _modes([(adapter, OFF) for adapter in parallel_adapters(encoder).values()]):
        yield


def adapted_and_original(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The image tower's features with and without the adapters, each [B, D] and not normalised, in one pass.

    Patch embedding and the whole first block are computed once; behind it the batch has both streams, 2 B. ``pixels`` are as for
    :meth:`~models.encoder.Encoder.image_features`.
    """
    adapters = list(parallel_adapters(encoder).values())
    if not adapters:
        raise ValueError("the encoder has no parallel adapters")
    with _modes([(adapter, HALF if number else FORK) for number, adapter in enumerate(adapters)]):
        adapted, original = encoder.raw_image_features(pixels).chunk(2)
    return adapted, original


@contextmanager
def dropout_of(encoder: Encoder, keys: Tensor) -> Iterator[None]:
    """Within the block the adapters drop units of image b of a batch by ``keys[b]``, int64 [B] on the encoder's device."""
    adapters = list(parallel_adapters(encoder).values())
    for number, adapter in enumerate(adapters):
        adapter.keys = keys * len(adapters) + number
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.keys = None


@contextmanager
def _modes(modes: list[tuple[ParallelAdapter, str]]) -> Iterator[None]:
    earlier = [(adapter, adapter.mode) for adapter, _ in modes]
    try:
        for adapter, mode in modes:
            adapter.mode = mode
        yield
    finally:
        for adapter, mode in earlier:
            adapter.mode = mode


def _places(tower: Tower) -> list[tuple[nn.Module, nn.Module, int]]:
    """Per block: the block, its module that takes the stream after attention, the stream's width."""
    blocks = named_blocks(tower)
    found = [_place(tower, block) for name, block in blocks.items() if BLOCK.fullmatch(name)]
    places = [place for place in found if place is not None]
    if not places or len(places) < len(blocks):
        raise no_place(tower, "parallel-adapter", "no blocks of a plain vision transformer", "full, bias, adapter, probe")
    return places


def _place(tower: Tower, block: nn.Module) -> tuple[nn.Module, nn.Module, int] | None:
    norm = next((getattr(block, name) for name in SECOND_NORMS if hasattr(block, name)), None)
    if norm is None or not projections_in(tower, block):
        return None
    normalises_after = "Post" in type(block).__name__  # EvaBlockPostNorm, ResPostBlock: x + LN(MLP(x))
    taker: Any = block.mlp if normalises_after else norm
    return block, taker, int(norm.weight.shape[0])
