"""AdaMerging: coefficients for each task, or for each task and tensor, that make the merged encoder sure of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from merging.coefficients import Columns, TaskVectors
from merging.learnt import Learnt, keeper_of, learning_method
from merging.method import scaling_of
from merging.options import MergeOptions
from merging.weights import Pool

if TYPE_CHECKING:
    from merging.adaptation import Objective
    from merging.data import MergeData
    from merging.resuming import Keeper

PAPER = "Yang et al., ICLR 2024 (arXiv:2310.02575)"
SCALING = 0.3  # where every coefficient starts
LEARNING_RATE = 1e-3
READS = ("scaling", "adapt_steps", "adapt_lr", "adapt_batch_size", "plateau", "clamp", "bf16_task_vectors")


def learn(pool: Pool, columns: Columns, options: MergeOptions, data: MergeData, method: str) -> Learnt:
    """The coefficients λ [K, C] of θ = θ_0 + Σ_k λ_k τ_k, learnt on images of the tasks without labels.

    Where ``data.state`` names a file, λ and the moments of Adam are kept in it, and the same command goes on from there.
    """
    from merging.adaptation import Entropies

    objective = Entropies(data, [model.name for model in pool.models], pool.merged, options.adapt_batch_size)
    keeper = keeper_of(pool, options, data, method, objective.batches)
    vectors = TaskVectors.of(pool, columns, data.device, vectors_dtype(options))
    coefficients, losses = adapt(objective, vectors, options, method, data.load.progress, keeper)
    return Learnt(method, coefficients.cpu(), entropies=(*losses[:1], *losses[-1:]))


def adapt(
    objective: Objective, vectors: TaskVectors, options: MergeOptions, method: str, progress: bool, keeper: Keeper | None = None
) -> tuple[Tensor, list[float]]:
    """λ [K, C] after ``adapt_steps`` steps of Adam from the scaling in every place, and the loss of every step.

    A step takes the gradient of the objective at the merge by λ, and carries it on to λ (:meth:`TaskVectors.gradient`). With ``clamp``
    the merge is by λ cut to [0, 1], and so is what is returned. A λ without influence, such as that of the key's bias, which softmax
    cancels, follows rounding: of any gradient but 0 Adam makes a step. Source: Yang et al., ICLR 2024, section 3.2; K batches of 16 in a
    step, Adam at 1e-3 and 1000 steps as in FusionBench.
    """
    from merging.adaptation import minimise

    coefficients = nn.Parameter(start(vectors, scaling_of(options, SCALING)))
    optimizer = torch.optim.Adam([coefficients], lr=LEARNING_RATE if options.adapt_lr is None else options.adapt_lr)
    loop = keeper.loop({"coefficients": coefficients}, optimizer) if keeper else None

    def step() -> float:
        loss, coefficients.grad = gradient(objective, vectors, coefficients.detach(), options.clamp)
        optimizer.step()
        return loss

    losses = minimise(step, options.adapt_steps, what=method, plateau=options.plateau, progress=progress, loop=loop)
    return used(coefficients.detach(), options.clamp), losses


def start(vectors: TaskVectors, scaling: float) -> Tensor:
    """λ [K, C] with the scaling in every place: task arithmetic."""
    name, base = next(iter(vectors.base.items()))
    return base.new_full((len(vectors.vectors[name]), len(vectors.columns.names)), scaling)


def gradient(objective: Objective, vectors: TaskVectors, coefficients: Tensor, clamp: bool = False) -> tuple[float, Tensor]:
    """The objective at the merge by λ [K, C], and dL/dλ [K, C]: 0 where λ is cut off."""
    merged_by = used(coefficients, clamp)
    loss, of_tensors = objective(lambda name: vectors.merged(merged_by, name))
    of_coefficients = vectors.gradient(of_tensors)
    return loss, of_coefficients.where(merged_by == coefficients, 0) if clamp else of_coefficients


def used(coefficients: Tensor, clamp: bool) -> Tensor:
    """The coefficients that are merged by."""
    return coefficients.clamp(0, 1) if clamp else coefficients


def vectors_dtype(options: MergeOptions) -> torch.dtype:
    """What task vectors are kept in; all arithmetic on them is in float32."""
    return torch.bfloat16 if options.bf16_task_vectors else torch.float32


METHODS = (
    learning_method(
        "task_wise_adamerging",
        "task arithmetic with a scaling for each task, learnt on images without labels",
        PAPER,
        learn=learn,
        columns=Columns.task_wise,
        default_scaling=SCALING,
        reads=READS,
    ),
    learning_method(
        "layer_wise_adamerging",
        "task arithmetic with a scaling for each task and tensor, learnt on images without labels",
        PAPER,
        learn=learn,
        columns=Columns.layer_wise,
        default_scaling=SCALING,
        reads=READS,
    ),
)
