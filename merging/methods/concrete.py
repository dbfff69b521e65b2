"""Concrete subspace learning: a mask over all weights, shared by the tasks, under which their task vectors disturb one another less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from merging.coefficients import Columns, TaskVectors, parts_of
from merging.learnt import MASK, Learnt, keeper_of, learning_method
from merging.method import base_of, each_task_vector, read, scaling_of, total
from merging.methods import adamerging
from merging.methods.concrete_mask import Masks, logits_gradient, rescaled
from merging.options import MergeOptions
from merging.weights import Pool

if TYPE_CHECKING:
    from merging.adaptation import Entropies, Objective
    from merging.data import MergeData
    from merging.resuming import Keeper

PAPER = "Tang et al., 2023 (arXiv:2312.06173)"
SCALING = 0.3
MASK_STAGE = "mask"  # the first of the two, which has a state of its own
LEARNING_RATE = 1e-3  # of the mask logits and, in the second stage, of the coefficients
STEPS, META_STEPS = 2000, 1000  # of the mask, for task arithmetic and for AdaMerging
READS = ("scaling", "mask_steps", "adapt_lr", "adapt_batch_size", "plateau", "temperature", "mask_type", "as_released")


def task_arithmetic(pool: Pool, columns: Columns, options: MergeOptions, data: MergeData, method: str) -> Learnt:
    """θ = θ_0 + λ m ⊙ Σ_k τ_k with λ fixed: only the mask is learnt. Memory: no task vector but their sum.

    Where ``data.state`` names a file, the mask logits, the moments of Adam and the random generator are kept in it, and the same
    command goes on from there.
    """
    objective, scaling = entropies(pool, options, data), scaling_of(options, SCALING)
    keeper = keeper_of(pool, options, data, method, objective.batches)
    vectors = summed_vectors(pool, columns, data.device)
    masks = Masks.like(vectors.base, options.temperature, data.seed)
    losses = learn_masks(objective, vectors, masks, options, method, data.load.progress, keeper)
    final = masks.final(options.mask_type, random=options.as_released)
    coefficients = torch.full((len(pool.models), 1), scaling)
    return Learnt(method, coefficients, on_cpu(final), (*losses[:1], *losses[-1:]))


def ada_merging(pool: Pool, columns: Columns, options: MergeOptions, data: MergeData, method: str) -> Learnt:
    """First the mask, learnt so that coefficients which are adapted to it do well; then the coefficients under the mask, from the start.

    State is kept as :func:`task_arithmetic` does, in a file for each: that of the mask stays until all is done.
    """
    objective, progress = entropies(pool, options, data), data.load.progress
    keeper = keeper_of(pool, options, data, method, objective.batches)
    vectors = TaskVectors.of(pool, columns, data.device, adamerging.vectors_dtype(options))
    masks = Masks.like(vectors.base, options.temperature, data.seed)
    learn_masks_by_adapted(objective, vectors, masks, options, method, progress, keeper)
    final = masks.final(options.mask_type, random=options.as_released)
    del masks
    coefficients, losses = adamerging.adapt(objective, replace(vectors, mask=final.__getitem__), options, method, progress, keeper)
    return Learnt(method, coefficients.cpu(), on_cpu(final), (*losses[:1], *losses[-1:]))


def learn_masks(
    objective: Objective,
    vectors: TaskVectors,
    masks: Masks,
    options: MergeOptions,
    method: str,
    progress: bool,
    keeper: Keeper | None = None,
) -> list[float]:
    """Adam steps on the mask logits at fixed coefficients, a fresh mask in each; returns the losses."""
    from merging.adaptation import minimise

    coefficients = adamerging.start(vectors, scaling_of(options, SCALING))
    optimizer = torch.optim.Adam(masks.logits.values(), lr=mask_rate(options))
    loop = keeper.loop(named(masks), optimizer, masks.generator) if keeper else None

    def step() -> float:
        loss = set_gradients(objective, vectors, coefficients, masks, masks.draw())
        optimizer.step()
        return loss

    steps = STEPS if options.mask_steps is None else options.mask_steps
    return minimise(step, steps, what=f"{method}: mask", plateau=options.plateau, progress=progress, loop=loop)


def learn_masks_by_adapted(
    objective: Objective,
    vectors: TaskVectors,
    masks: Masks,
    options: MergeOptions,
    method: str,
    progress: bool,
    keeper: Keeper | None = None,
) -> list[float]:
    """Learn the mask logits at coefficients that are adapted to each mask by one step from the start; returns the losses.

    In every step a mask is drawn; Adam at ``inner_lr``, whose state lives on, takes a step of λ from the start by the gradient there;
    and the logits take one by the gradient at the new λ, on fresh images. Adam passes over what has no gradient, so one does for both.
    ``as_released`` repeats a slip of the released code, which puts λ back only after it has merged: its inner gradient is that at the
    λ of the step before. Source: Tang et al., 2023.
    """
    from merging.adaptation import minimise

    initial = adamerging.start(vectors, scaling_of(options, SCALING))
    coefficients = nn.Parameter(initial.clone())
    groups = [{"params": [coefficients], "lr": options.inner_lr}, {"params": [*masks.logits.values()], "lr": mask_rate(options)}]
    optimizer = torch.optim.Adam(groups)
    learnt = {"coefficients": coefficients, **named(masks)}
    loop = keeper.loop(learnt, optimizer, masks.generator, MASK_STAGE) if keeper else None

    def step() -> float:
        drawn = masks.draw()
        at = coefficients.detach().clone() if options.as_released else initial
        coefficients.grad = adamerging.gradient(objective, under(drawn, vectors), at, options.clamp)[1]
        with torch.no_grad():
            coefficients.copy_(initial)
        optimizer.step()
        optimizer.zero_grad()
        loss = set_gradients(objective, vectors, adamerging.used(coefficients.detach(), options.clamp), masks, drawn)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    steps = META_STEPS if options.mask_steps is None else options.mask_steps
    return minimise(step, steps, what=f"{method}: mask", plateau=options.plateau, progress=progress, loop=loop)


def set_gradients(objective: Objective, vectors: TaskVectors, coefficients: Tensor, masks: Masks, drawn: Mapping[str, Tensor]) -> float:
    """Give the mask logits the gradient at these masks and coefficients; returns the loss.

    With τ = Σ_k λ_k τ_k, dL/dm' = dL/dθ ⊙ τ, from where :func:`logits_gradient` goes on.
    """
    masked = under(drawn, vectors)
    loss, of_tensors = objective(lambda name: masked.merged(coefficients, name))
    for name, gradient in of_tensors.items():
        of_mask = gradient * vectors.summed(coefficients, name)
        masks.logits[name].grad = logits_gradient(of_mask, drawn[name], masks.temperature, len(parts_of(name)))
    return loss


def under(drawn: Mapping[str, Tensor], vectors: TaskVectors) -> TaskVectors:
    """The task vectors under the masks that were drawn, rescaled."""
    return replace(vectors, mask=lambda name: rescaled(drawn[name], len(parts_of(name))))


def summed_vectors(pool: Pool, columns: Columns, device: torch.device) -> TaskVectors:
    """Σ_k τ_k in the place of one task vector."""
    base = base_of(pool, "A task vector")
    summed = {name: total(each_task_vector(pool, name)).to(device)[None] for name in pool.merged}
    return TaskVectors({name: read(base, name).to(device) for name in pool.merged}, summed, columns)


def mask_rate(options: MergeOptions) -> float:
    """Of Adam on the mask logits."""
    return LEARNING_RATE if options.adapt_lr is None else options.adapt_lr


def named(masks: Masks) -> dict[str, nn.Parameter]:
    """The mask logits as a state names them."""
    return {MASK + name: logits for name, logits in masks.logits.items()}


def entropies(pool: Pool, options: MergeOptions, data: MergeData) -> Entropies:
    """The entropy of the merged encoder's answers on the models' tasks."""
    from merging.adaptation import Entropies

    return Entropies(data, [model.name for model in pool.models], pool.merged, options.adapt_batch_size)


def on_cpu(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks, off the device."""
    return {name: mask.cpu() for name, mask in masks.items()}


METHODS = (
    learning_method(
        "concrete_task_arithmetic",
        "task arithmetic under a mask that all tasks share, learnt on images without labels",
        PAPER,
        learn=task_arithmetic,
        columns=Columns.task_wise,
        default_scaling=SCALING,
        reads=READS,
    ),
    *(
        learning_method(
            f"concrete_{kind.__name__}_adamerging",
            f"{kind.__name__.replace('_', '-')} AdaMerging under a mask that all tasks share, learnt on images without labels",
            PAPER,
            learn=ada_merging,
            columns=kind,
            default_scaling=SCALING,
            reads=(*READS, "adapt_steps", "inner_lr", "clamp", "bf16_task_vectors"),
        )
        for kind in (Columns.task_wise, Columns.layer_wise)
    ),
)
