"""RegMean: matrices that answer like every model's own on the inputs that they have there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from merging.method import MergeTensor, Method
from merging.methods.average import simple_average
from merging.methods.images import check_image_tower, needs_images
from merging.options import MergeOptions
from merging.weights import Pool

if TYPE_CHECKING:
    from merging.data import MergeData


def regmean(pool: Pool, options: MergeOptions, data: MergeData) -> MergeTensor:
    """W^T = (Σ_k G^_k)^{-1} Σ_k G^_k W_k^T for the matrices of linear maps in the blocks; all other tensors are averaged.

    G_k = X_k^T X_k / n over the n tokens of the images of task k, with X_k what goes into the map in model k; G^ is G with its off-diagonal
    multiplied by ``non_diagonal_ratio``. Query, key and value, which read the same, share one matrix. The blocks are taken one by one, so
    that the sums of one block are in memory, and of each task the tokens between two blocks. Source: Jin et al., ICLR 2023, section 3.
    """
    from merging.layers import Layers, through
    from merging.regression import BlockRegression

    check_image_tower(pool, "regmean")
    layers, average, solved = Layers(data, "regmean"), simple_average(pool, options), dict[str, Tensor]()
    hidden = [layers.inputs_with(model) for model in pool.models]
    for prefix, block in layers.progress("regmean"):
        regression = BlockRegression(pool, block, prefix, options.non_diagonal_ratio)
        for index, model in enumerate(pool.models):
            data.fill(block, model, prefix)
            with (grams := regression.grams()).watching():
                hidden[index] = through(block, hidden[index])
            regression.add(grams, model.name)
        solved.update(regression.solve(average, data))
    return lambda name: solved[name] if name in solved else average(name)


METHOD = Method(
    "regmean",
    "matrices that answer like every model's own on its inputs, by linear regression; the rest averaged",
    "Jin et al., ICLR 2023 (arXiv:2212.09849)",
    reads=("non_diagonal_ratio",),
    default_scaling=None,
    start=needs_images("regmean"),
    start_with_data=regmean,
    data="images of every task",
)
