"""From a base and models tuned from it to a routed encoder whose routers have not been trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError
from merging.method import base_of
from merging.methods.images import check_image_tower
from merging.methods.task_arithmetic import METHOD as TASK_ARITHMETIC
from merging.options import MergeOptions
from merging.stream import spec_of
from merging.weights import Pool, TensorWeights, Weights, equal, smallest_first
from merging.wemoe.mlp import install, routed_names
from merging.wemoe.options import WemoeOptions
from merging.wemoe.sparse import each_pruned
from models.checkpoint import base_sha256
from models.encoder import Encoder
from models.zoo import canonical_name


@dataclass(frozen=True)
class Routed:
    """A routed encoder and what it was made of.

    ``model`` and ``base_sha256`` are the base, ``tasks`` the K models in the order of the task vectors. ``merged`` are the tensors, by
    their names in ``encoder.model``, that are merged once, ``routed`` those of the MLPs.
    """

    encoder: Encoder
    options: WemoeOptions
    model: str
    base_sha256: str
    tasks: tuple[str, ...]
    merged: tuple[str, ...]
    routed: tuple[str, ...]


def assemble(pool: Pool, encoder: Encoder, options: WemoeOptions) -> Routed:
    """Make ``encoder``, which is the pool's base, a routed encoder: in place, its routers as they are drawn.

    Outside the MLPs its image tower becomes θ_0 + ``scaling`` Σ_k τ_k. The pool is under the names of ``encoder.model``. Raises
    :class:`UserError` for a tower without known MLPs, a pool of other tensors than those of the tower, and a base that is not the encoder.
    """
    routed = tuple(routed_names(encoder))
    _check(pool, encoder, routed)
    base, sha256 = canonical_name(encoder.source.name), base_sha256(encoder)
    merged = tuple(name for name in pool.merged if name not in set(routed))
    _merge_once(pool, encoder, merged, options.scaling)
    install(encoder, lambda name: each_pruned(pool.task_vectors(name), options.prune_ratio), len(pool.models), options)
    return Routed(encoder, options, base, sha256, tuple(model.name for model in pool.models), merged, routed)


def _merge_once(pool: Pool, encoder: Encoder, names: tuple[str, ...], scaling: float) -> None:
    merge = TASK_ARITHMETIC.start(pool, MergeOptions(scaling=scaling))
    own: dict[str, Tensor] = encoder.model.state_dict()
    with torch.no_grad():
        for name in names:
            own[name].copy_(merge(name))


def _check(pool: Pool, encoder: Encoder, routed: tuple[str, ...]) -> None:
    base = base_of(pool, "WEMoE")
    check_image_tower(pool, "WEMoE")
    absent = [name for name in routed if name not in set(pool.merged)]
    if absent:
        raise UserError(f"WEMoE routes '{absent[0]}', which is not among the tensors that are merged; leave --only out.")
    if not _same(base, encoder, pool.merged):
        raise UserError(f"The encoder '{encoder.source.name}' has other weights than the base '{base.name}'; they must be one model.")


def _same(base: Weights, encoder: Encoder, names: tuple[str, ...]) -> bool:
    own = TensorWeights(encoder.source.name, {name: tensor.cpu() for name, tensor in encoder.model.state_dict().items()})
    if any(name not in own.tensors or base.specs[name] != spec_of(own.tensors[name]) for name in names):
        return False
    return equal(base, own, smallest_first(base, names))
