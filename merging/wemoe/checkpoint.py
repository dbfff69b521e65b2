"""Checkpoints of routed encoders: the tuning ``wemoe`` of :mod:`models.checkpoint`, with tensors of its own.

============================  ===================================================================================
``merged/NAME``               a tensor of the image tower outside its MLPs, merged once
``experts/NAME``              the K task vectors [K, *shape] of a tensor of an MLP
``experts/NAME/mask``         the same, pruned: which entries are not 0, a bit each (:func:`merging.wemoe.sparse.pack`),
``experts/NAME/values``       and these
``router/NAME``               a parameter of a router; one that all blocks share is stored once
============================  ===================================================================================

NAME is that in ``encoder.model``. The base's weights are not stored: the header says which they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from merging.stream import Spec, spec_of, write_tensors
from merging.wemoe.assemble import Routed
from merging.wemoe.mlp import install, routers_of
from merging.wemoe.options import WemoeOptions
from merging.wemoe.sparse import pack, unpack
from models.checkpoint import CheckpointHeader
from models.encoder import Encoder
from models.tensors import read_safetensors

TUNING = "wemoe"
MERGED, EXPERTS, ROUTER = "merged/", "experts/", "router/"


def save_routed(path: Path, routed: Routed, settings: Mapping[str, Any] | None = None) -> None:
    """Write the routed encoder to ``path``, atomically; ``settings`` are those of the training, free in form."""
    header = CheckpointHeader(
        model=routed.model,
        tuning=TUNING,
        base_sha256=routed.base_sha256,
        options={**routed.options.structure, "tasks": list(routed.tasks)},
        seed=routed.options.seed,
        settings=settings or {},
    )
    write_tensors(path, dict(_stored(routed)), header.to_metadata())


def restore(path: Path, encoder: Encoder, header: CheckpointHeader) -> None:
    """Make ``encoder``, which is the header's base, the routed encoder that ``path`` holds; its routers are marked as training.

    Raises :class:`UserError` for a damaged header, and for tensors that are not those of such an encoder.
    """
    options, tasks = _structure(path, header)
    tensors, _ = read_safetensors(path)
    try:
        own = encoder.model.state_dict()
        install(encoder, lambda name: _experts(tensors, name, (len(tasks), *own[name].shape)), len(tasks), options)
        _fill(encoder.model.state_dict(), _taken(tensors, MERGED))
        _fill(routers_of(encoder), _taken(tensors, ROUTER), every=True)
        if tensors:
            raise ValueError(f"there is no place for '{next(iter(tensors))}'")
    except ValueError as error:
        raise UserError(f"'{path}' does not fit the model '{header.model}': {error}.") from error


def _stored(routed: Routed) -> Iterator[tuple[str, Tensor]]:
    own = routed.encoder.model.state_dict()
    for name in routed.merged:
        yield MERGED + name, own[name]
    for name in routed.routed:
        if routed.options.prune_ratio is None:
            yield EXPERTS + name, own[name][1:]
        else:
            mask, values = pack(own[name][1:])
            yield f"{EXPERTS}{name}/mask", mask
            yield f"{EXPERTS}{name}/values", values
    for name, parameter in routers_of(routed.encoder).items():
        yield ROUTER + name, parameter


def _structure(path: Path, header: CheckpointHeader) -> tuple[WemoeOptions, Sequence[str]]:
    """The options and the names of the tasks."""
    stored = dict(header.options)
    tasks = stored.pop("tasks", None)
    try:
        if not isinstance(tasks, list) or not tasks:
            raise ValueError("no tasks")
        return WemoeOptions.of_structure(stored), tasks
    except (TypeError, ValueError) as error:
        raise UserError(f"The header of '{path}' is damaged: {error}.") from error


def _experts(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Take the task vectors of a tensor out of ``tensors``, in either form."""
    full = EXPERTS + name
    if full in tensors:
        vectors = tensors.pop(full)
    elif f"{full}/mask" in tensors and f"{full}/values" in tensors:
        vectors = unpack(tensors.pop(f"{full}/mask"), tensors.pop(f"{full}/values"), shape)
    else:
        raise ValueError(f"it lacks '{full}'")
    if vectors.shape != shape or vectors.dtype != torch.float32:
        raise ValueError(f"'{full}' is {spec_of(vectors)}; {Spec(shape, torch.float32)} is expected")
    return vectors


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take those whose names begin with ``prefix`` out of ``tensors``; the prefix goes."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _fill(targets: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, every: bool = False) -> None:
    """Copy ``stored`` into the targets of these names, ``every`` one of which must then have come. ValueError where they do not fit."""
    lacking = set(targets) - set(stored)
    if every and lacking:
        raise ValueError(f"it lacks '{min(lacking)}'")
    with torch.no_grad():
        for name, tensor in stored.items():
            if name not in targets or targets[name].shape != tensor.shape:
                raise ValueError(f"there is no place for '{name}' ({spec_of(tensor)})")
            targets[name].copy_(tensor)
