"""What a method has learnt about merging: coefficients, and masks where it has them; kept in a file, and merged by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.errors import UserError
from common.files import ensure_folder
from merging.coefficients import Columns, combined
from merging.method import MergeTensor, Method, base_of, read
from merging.methods.images import check_image_tower, needs_images
from merging.options import MergeOptions
from merging.stream import sha256_of, write_tensors
from merging.weights import Pool, View, Weights
from models.tensors import read_safetensors, sha256_of_tensors

if TYPE_CHECKING:
    from merging.data import MergeData
    from merging.resuming import Batches, Keeper

FORMAT = "clipscope-learnt-merge/1"
MASK = "mask/"  # how the names of masks begin in the file


@dataclass(frozen=True)
class Learnt:
    """θ = θ_0 + m ⊙ Σ_k λ_k τ_k: ``coefficients`` λ float32 [K, C], and ``masks`` m float32 [*shape] by tensor, or none (then 1).

    All on the CPU. ``entropies`` are the mean entropies at the first and the last step of learning.
    """

    method: str
    coefficients: Tensor
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    entropies: tuple[float, ...] = ()

    def merge(self, pool: Pool, columns: Columns) -> MergeTensor:
        """The merge of ``pool``, tensor by tensor: nothing of the pool stays in memory."""
        base = base_of(pool, self.method)

        def merge(name: str) -> Tensor:
            tau = combined(self.coefficients[:, columns.of[name]], pool.task_vectors(name))
            return read(base, name).add_(tau * self.masks[name] if self.masks else tau)

        return merge

    def save(self, path: Path, pool: Pool, columns: Columns) -> None:
        """Write it to ``path``, with the names of the models and columns of λ."""
        tensors = {"coefficients": self.coefficients, **{MASK + name: mask for name, mask in self.masks.items()}}
        names = [model.name for model in pool.models]
        described = {"method": self.method, "models": names, "columns": columns.names, "entropies": self.entropies}
        write_tensors(path, tensors, {"format": FORMAT, **{key: json.dumps(value) for key, value in described.items()}})


def load(path: Path, method: str, pool: Pool, columns: Columns) -> Learnt:
    """What :meth:`Learnt.save` wrote, with the rows and columns of λ in the order of ``pool`` and ``columns``.

    Raises :class:`UserError` when the file is none of those, is another method's, or is of other models or tensors.
    """
    tensors, described = read_safetensors(path)
    if described.get("format") != FORMAT:
        raise UserError(f"'{path}' holds no learnt merge; --weights-file takes what --save-weights wrote.")
    if (other := json.loads(described["method"])) != method:
        raise UserError(f"'{path}' was learnt by {other}; merge by it with --method {other}.")
    rows = _places(path, "models", json.loads(described["models"]), [model.name for model in pool.models])
    order = _places(path, "tensors", json.loads(described["columns"]), columns.names)
    masks = {name.removeprefix(MASK): tensor for name, tensor in tensors.items() if name.startswith(MASK)}
    if masks:
        _places(path, "tensors", list(masks), pool.merged)
    return Learnt(method, tensors["coefficients"][rows][:, order], masks, tuple(json.loads(described["entropies"])))


def check_new(path: Path, *, again: bool = False) -> None:
    """Refuse, before the work, a file that cannot be written, or exists, unless a run that goes on ``again`` may have written it."""
    if path.suffix != ".safetensors":
        raise UserError(f"--save-weights '{path}' does not end in .safetensors.")
    if path.exists() and not again:
        raise UserError(f"'{path}' exists; name another file for --save-weights, or remove it.")
    ensure_folder(path.parent)


def _places(path: Path, what: str, there: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Where each of ``wanted`` is in ``there``, int64; both must have the same names, in any order."""
    strange = sorted(set(wanted) ^ set(there))
    if strange:
        raise UserError(f"'{path}' was learnt for other {what}: '{strange[0]}' is only {'here' if strange[0] in wanted else 'there'}.")
    return torch.tensor([list(there).index(name) for name in wanted])


def keeper_of(pool: Pool, options: MergeOptions, data: MergeData, method: str, batches: Batches) -> Keeper | None:
    """What keeps the state of learning; None where the data name no file for it. Reads the models once, to tell them from others."""
    if data.state is None:
        return None
    from merging.resuming import Keeper
    from models.checkpoint import base_sha256

    chosen = {name: value for name, value in asdict(options).items() if name not in ("device", "weights_file", "save_weights")}
    models = [*pool.models, base_of(pool, method)]
    settings = {
        "method": method,
        **chosen,
        **{f"the weights of {model.name}": _sha256(model, pool.merged) for model in models},
        "the encoder": base_sha256(data.encoder),
        "the heads": sha256_of_tensors({model.name: data.heads[model.name] for model in pool.models}),
        **{f"the images of {model.name}": data.task(model.name).fingerprint for model in pool.models},
        "the order of images": data.seed,
        "precision": data.runtime.precision,
        "device": data.device.type,
    }
    return Keeper(data.state, settings, batches, data.runtime.say)


def _sha256(model: Weights, names: Iterable[str]) -> str:
    return sha256_of(View(model.name, {name: model.specs[name] for name in names}, model.read))


Learn = Callable[[Pool, Columns, MergeOptions, "MergeData", str], Learnt]  # the last is the method's name


def learning_method(
    name: str,
    description: str,
    paper: str,
    *,
    learn: Learn,
    columns: Callable[[Iterable[str]], Columns],
    default_scaling: float,
    reads: tuple[str, ...],
) -> Method:
    """A method that learns on images without labels, or merges by a file of what it has learnt before, for which it needs none."""

    def start(pool: Pool, options: MergeOptions) -> MergeTensor:
        by_file = options.weights_file is not None
        return _of_file(name, pool, columns(pool.merged), options) if by_file else needs_images(name)(pool, options)

    def start_with_data(pool: Pool, options: MergeOptions, data: MergeData) -> MergeTensor:
        if options.weights_file is not None:
            return start(pool, options)
        check_image_tower(pool, name)
        return _learn_and_keep(learn, name, pool, columns(pool.merged), options, data)

    return Method(
        name,
        description,
        paper,
        reads=(*reads, "weights_file", "save_weights"),
        default_scaling=default_scaling,
        start=start,
        start_with_data=start_with_data,
        data="unlabelled images of every task",
        transductive=True,
    )


def _of_file(name: str, pool: Pool, columns: Columns, options: MergeOptions) -> MergeTensor:
    if options.scaling is not None or options.save_weights is not None:
        raise UserError("--weights-file merges by what is in the file; leave --scaling and --save-weights out.")
    return load(Path(str(options.weights_file)), name, pool, columns).merge(pool, columns)


def _learn_and_keep(learn: Learn, name: str, pool: Pool, columns: Columns, options: MergeOptions, data: MergeData) -> MergeTensor:
    """Learn, and write what was learnt where --save-weights says."""
    path = None if options.save_weights is None else Path(options.save_weights)
    if path is not None:
        check_new(path, again=data.state is not None and data.state.path.exists())
    learnt = learn(pool, columns, options, data, name)
    if path is not None:
        learnt.save(path, pool, columns)
    return learnt.merge(pool, columns)
