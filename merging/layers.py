"""An image tower taken apart: what goes into its first block, and one block after the other, with other weights in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import UserError
from merging.data import MergeData
from merging.methods.images import TOWER
from merging.weights import Weights
from models.parts import Tower, image_tower, named_blocks


class Layers:
    """A copy of the image tower of ``data``, run block by block on the drawn images of each task, in float32.

    ``blocks`` are by the prefix of their tensors' names. Raises :class:`UserError` for a tower that is no plain vision transformer, in
    which each block takes what the one before it gives and nothing else.
    """

    def __init__(self, data: MergeData, method: str) -> None:
        self.data = data
        self.tower = data.tower()
        own = image_tower(data.encoder)
        if not _is_a_chain(self.tower):
            raise UserError(f"{method} goes through vision transformers block by block, and {own} is none that it knows.")
        blocks = named_blocks(Tower("image", self.tower, TOWER, own.model_name))
        self.blocks = {f"{name}.": block for name, block in blocks.items()}

    def progress(self, method: str) -> Iterator[tuple[str, nn.Module]]:
        """The blocks, with a bar where progress is to be shown."""
        yield from tqdm(self.blocks.items(), desc=f"{method}: blocks", disable=not self.data.load.progress, leave=False)

    @torch.no_grad()
    def inputs(self, model: str) -> list[Tensor]:
        """What goes into the first block, for the images of a model's task, with the weights that the tower has now: a batch each."""
        return [self._before_blocks(pixels) for pixels in self.data.batches(model)]

    def inputs_with(self, model: Weights) -> list[Tensor]:
        """The same with the model's own weights."""
        self.data.fill(self.tower, model)
        return self.inputs(model.name)

    def _before_blocks(self, pixels: Tensor) -> Tensor:
        def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _Reached(inputs[0])

        handle = next(iter(self.blocks.values())).register_forward_pre_hook(stop)
        try:
            self.tower(pixels)
        except _Reached as reached:
            return reached.x
        finally:
            handle.remove()
        raise AssertionError("the tower never came to its first block")


@torch.no_grad()
def through(block: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """What a block makes of each batch."""
    return [block(x) for x in batches]


class _Reached(Exception):
    """Carries what goes into the first block out of the tower."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def _is_a_chain(tower: nn.Module) -> bool:
    trunk: Any = getattr(tower, "trunk", None)
    in_timm = isinstance(tower, TimmModel) and getattr(type(trunk), "forward_features", None) is TimmVisionTransformer.forward_features
    return isinstance(tower, VisionTransformer) or in_timm
