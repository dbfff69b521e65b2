"""Fisher merging: a mean of the models in which every weight counts by how much a model's answers depend on it."""

from __future__ import annotations

from math import hypot, isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.errors import UserError
from merging.method import MergeTensor, Method
from merging.methods.images import check_image_tower, needs_images
from merging.options import MergeOptions
from merging.weights import Pool

if TYPE_CHECKING:
    from merging.data import MergeData


def fisher(pool: Pool, options: MergeOptions, data: MergeData) -> MergeTensor:
    """θ = Σ_k a_k (F_k + ε) θ_k / Σ_k a_k (F_k + ε), element by element.

    F_k is the diagonal Fisher information of model k on images of its task (:class:`~merging.fisher_information.FisherInformation`), ε
    ``minimal_fisher``. Unless ``normalize_fisher`` is off, a_k = 1 / (n_k + ε) with n_k = ||F_k||_2 over all merged tensors: a factor that
    all k share cancels. What no answer depends on has the weights a_k. Both sums grow model by model: with F_k three models
    are in memory, whatever K is. Source: Matena and Raffel, NeurIPS 2022, eq. 4; normalised as in FusionBench.
    """
    from merging.fisher_information import FisherInformation

    check_image_tower(pool, "fisher")
    if options.as_released and options.fisher_samples:
        raise UserError("--fisher-samples draws answers where --as-released takes all at once; leave one of them out.")
    information = FisherInformation(data, pool.merged, options.fisher_samples, options.as_released)
    weighted, total = ({name: torch.zeros(pool.reference.specs[name].shape) for name in pool.merged} for _ in range(2))
    for model in pool.models:
        data.fill(information.tower, model)
        diagonal = information.diagonal(model.name)
        length = norm(diagonal)
        if not isfinite(length):
            raise UserError(f"The gradients of '{model.name}' are not finite; its weights have diverged.")
        scale = 1 / (length + options.minimal_fisher) if options.normalize_fisher else 1.0
        for name in pool.merged:
            importance = _of(diagonal, name).add(options.minimal_fisher).mul_(scale).cpu()
            total[name] += importance
            weighted[name].addcmul_(model.read(name).float(), importance)
    return lambda name: weighted[name] / total[name]


def norm(diagonal: dict[str, Tensor]) -> float:
    """||F||_2 over all tensors."""
    return hypot(*(float(torch.linalg.vector_norm(tensor)) for tensor in diagonal.values()))


def _of(diagonal: dict[str, Tensor], name: str) -> Tensor:
    """A tensor's part of the diagonal, taken out of it; 0 for one that is no parameter, such as BatchNorm's statistics."""
    return diagonal.pop(name, torch.zeros(()))


METHOD = Method(
    "fisher",
    "the mean of the models, weight by weight as much as a model's answers depend on it",
    "Matena and Raffel, NeurIPS 2022 (arXiv:2111.09832)",
    reads=("fisher_samples", "normalize_fisher", "minimal_fisher", "as_released"),
    default_scaling=None,
    start=needs_images("fisher"),
    start_with_data=fisher,
    data="images of every task",
)
