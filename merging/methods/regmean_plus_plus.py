"""RegMean++: RegMean block by block, each on what the merged blocks before it give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from merging.method import MergeTensor, Method, base_of
from merging.methods.average import simple_average
from merging.methods.images import check_image_tower, needs_images
from merging.options import MergeOptions
from merging.weights import Pool, View, part_of

if TYPE_CHECKING:
    from merging.data import MergeData

NORMS_BEHIND = ("visual.ln_post.", "visual.trunk.norm.")  # the LayerNorm behind the last block


def regmean_plus_plus(pool: Pool, options: MergeOptions, data: MergeData) -> MergeTensor:
    """The regression of RegMean, where the inputs of a block are what the merged tower gives there; all other tensors are averaged.

    What comes before the blocks is averaged, and every task's images go through it. Then for each block: a task's tokens go through the
    block of its own model, which gives its Gram matrices; the block is merged; all tasks' tokens go through the merged block. With
    ``as_released`` the LayerNorm behind the last block is the base's, an oversight of the released code. Source: arXiv:2508.03121.
    """
    from merging.layers import Layers, through
    from merging.regression import BlockRegression

    check_image_tower(pool, "regmean++")
    result = Result(pool, options)
    layers, merged = Layers(data, "regmean++"), View("merged", pool.reference.specs, result.read)
    data.fill(layers.tower, merged)
    hidden = [layers.inputs(model.name) for model in pool.models]
    for prefix, block in layers.progress("regmean++"):
        regression = BlockRegression(pool, block, prefix, options.non_diagonal_ratio)
        for model, tokens in zip(pool.models, hidden, strict=True):
            data.fill(block, model, prefix)
            with (grams := regression.grams()).watching():
                through(block, tokens)
            regression.add(grams, model.name)
        result.solved.update(regression.solve(result.average, data))
        data.fill(block, merged, prefix)
        hidden = [through(block, tokens) for tokens in hidden]
    return result.merged


class Result:
    """The merged model, as far as it is known: ``solved`` matrices, and averages of all else that is merged."""

    def __init__(self, pool: Pool, options: MergeOptions) -> None:
        self.pool, self.average = pool, simple_average(pool, options)
        self.solved: dict[str, Tensor] = {}
        self.base = base_of(pool, "regmean++ --as-released") if options.as_released else None

    def merged(self, name: str) -> Tensor:
        """A merged tensor, float32."""
        if self.base is not None and name.startswith(NORMS_BEHIND):
            return self.base.read(name).float()
        return self.solved[name] if name in self.solved else self.average(name)

    def read(self, name: str, part: slice | None) -> Tensor:
        """Any tensor of the merged model; see :class:`~merging.weights.Weights`."""
        return part_of(self.merged(name) if name in self.pool.merged else self.pool.reference.read(name), part)


METHOD = Method(
    "regmean_plus_plus",
    "RegMean block by block, each on what the merged blocks before it give",
    "Nguyen et al., 2025 (arXiv:2508.03121)",
    reads=("non_diagonal_ratio", "as_released"),
    default_scaling=None,
    start=needs_images("regmean_plus_plus"),
    start_with_data=regmean_plus_plus,
    data="images of every task",
)
