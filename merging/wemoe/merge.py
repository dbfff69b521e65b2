"""Merge models into a routed encoder: assemble it, train its routers, write its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ensure_folder
from merging.adaptation import with_own_heads
from merging.data import MergeData
from merging.output import RECORD
from merging.resuming import StateFile
from merging.weights import Pool
from merging.wemoe.assemble import Routed, assemble
from merging.wemoe.checkpoint import save_routed
from merging.wemoe.options import WemoeOptions
from merging.wemoe.training import prune_routers, train_routers


def merge_routed(
    pool: Pool, data: MergeData, options: WemoeOptions, out: Path, *, record: Mapping[str, Any] | None = None, overwrite: bool = False
) -> tuple[Routed, list[float]]:
    """Write the routed encoder of ``pool`` to ``out``; returns it, and the mean entropy of every step of its training.

    ``data.encoder`` is the pool's base, and becomes the routed encoder. ``record`` is what the header says of the models. A run that was
    interrupted leaves no output but its state beside it, from which the same command goes on. Raises :class:`UserError` as
    :func:`assemble` and :func:`train_routers` do, and for an output that exists already.
    """
    state = _state_beside(out, overwrite)
    if data.runtime.precision == "fp16":
        raise UserError("Gradients of entropies vanish in fp16; use --precision bf16 or fp32.")
    data = with_own_heads(data, [model.name for model in pool.models])  # made before the encoder has other modules, which name kept ones
    routed = assemble(pool, data.encoder, options)
    entropies = train_routers(routed, data, state)
    prune_routers(routed)
    save_routed(out, routed, {RECORD: record or {}, **_settings(routed, data, entropies)})
    state.remove()
    return routed, entropies


def _state_beside(out: Path, overwrite: bool) -> StateFile:
    """The file of an unfinished training, once it is clear that the output can be written."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out '{out}' does not end in .safetensors, as the checkpoint of a routed encoder does.")
    if out.exists() and not overwrite:
        raise UserError(f"'{out}' exists; --overwrite replaces it.")
    ensure_folder(out.parent)
    return StateFile.beside(out, overwrite)


def _settings(routed: Routed, data: MergeData, entropies: list[float]) -> dict[str, Any]:
    """What the header says of the training. Test images without labels make a merge transductive."""
    tasks = {name: data.tasks[name] for name in routed.tasks}
    return {
        **routed.options.training,
        "images": {name: {"task": task.name, "split": task.split, "fingerprint": task.fingerprint} for name, task in tasks.items()},
        "transductive": any(task.split == "test" for task in tasks.values()),
        "entropies": [*entropies[:1], *entropies[-1:]],
        "precision": data.runtime.precision,
    }
