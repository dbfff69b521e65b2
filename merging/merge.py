"""Merge models tensor by tensor into one file, or into one for each model."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import sha256_of_file
from common.provenance import now, versions
from common.stages import staged
from merging.inputs import Inputs
from merging.method import Method
from merging.options import MergeOptions
from merging.output import Output, Target, check_free, check_no_input, target_of, targets_in, writing
from merging.sources import Source

HASHING = 8  # threads at most: one hashes 1 to 2 GB/s, and merging itself is often no slower


@dataclass(frozen=True)
class Merged:
    """What was written."""

    paths: tuple[Path, ...]
    tensors: int
    nbytes: int
    seconds: float


def merge(inputs: Inputs, method: Method, options: MergeOptions, out: Path, *, per_model: bool = False, overwrite: bool = False) -> Merged:
    """Merge by ``method`` and write the result in the base's form to ``out``; with ``per_model`` one encoder per model into that folder.

    Tensors that are not merged are the base's. One tensor at a time is in memory, K of them for some methods. Raises :class:`UserError`
    when something does not fit or a file cannot be read or written; no output is left then.
    """
    started = time.perf_counter()
    targets = targets_of(inputs, method, out, per_model, overwrite)
    record = record_of(inputs, method, options, per_model, checksums(inputs))
    with ExitStack() as stack:
        outputs = [stack.enter_context(writing(target, record)) for target in targets]
        (write_per_model if per_model else write_merged)(inputs, method, options, outputs)
    nbytes = sum(target.path.stat().st_size for target in targets)
    tensors = len(inputs.pool.merged) * len(targets)
    return Merged(tuple(target.shown for target in targets), tensors, nbytes, time.perf_counter() - started)


def targets_of(inputs: Inputs, method: Method, out: Path, per_model: bool, overwrite: bool) -> list[Target]:
    """Where the outputs go. UserError for one that is an input or exists, and when the method gives no encoder per model."""
    if per_model and method.per_model is None:
        raise UserError(f"{method.name} gives one encoder for all models; leave --per-model out.")
    names = [model.name for model in inputs.models]
    targets = targets_in(out, names, inputs.reference) if per_model else [target_of(out, inputs.reference)]
    for target in targets:
        check_no_input(target.path, [*inputs.models, inputs.reference])
        check_free(target, overwrite)
    return targets


@staged("merge")
def write_merged(inputs: Inputs, method: Method, options: MergeOptions, outputs: Sequence[Output]) -> None:
    """Every tensor of the one output, in the order of the base's file."""
    merged, merge_tensor = frozenset(inputs.pool.merged), method.start(inputs.pool, options)
    for name in outputs[0].target.stored:
        if name in merged:
            outputs[0].write(name, merge_tensor(name))
        else:
            outputs[0].copy(name)


@staged("merge")
def write_per_model(inputs: Inputs, method: Method, options: MergeOptions, outputs: Sequence[Output]) -> None:
    """Every tensor of every output."""
    assert method.per_model is not None
    merged, merge_tensor = frozenset(inputs.pool.merged), method.per_model(inputs.pool, options)
    for name in outputs[0].target.stored:
        for model, output in enumerate(outputs):
            if name in merged:
                output.write(name, merge_tensor(model, name))
            else:
                output.copy(name)


@staged("hash")
def checksums(inputs: Inputs) -> dict[Path, str]:
    """The SHA-256 of every file that is read, several at a time.

    Before the merge, not beside it: PyTorch's threads wait for each other by spinning, so that both together take longer.
    """
    sources = [*inputs.models, *([inputs.base] if inputs.base else [])]
    paths = [path for source in sources for path in source.files]
    with ThreadPoolExecutor(min(HASHING, os.cpu_count() or 1)) as executor:
        return dict(zip(paths, executor.map(_sha256, paths), strict=True))


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error


def record_of(inputs: Inputs, method: Method, options: MergeOptions, per_model: bool, sha256: Mapping[Path, str]) -> dict[str, Any]:
    """What the result's header says of how it came about; ``sha256`` has those of the files (:func:`checksums`)."""
    read = {name: getattr(options, name) for name in method.reads}
    if read.get("scaling", 0) is None:
        read["scaling"] = method.per_model_scaling if per_model else method.default_scaling
    return {
        "method": method.name,
        "options": read,
        "per_model": per_model,
        "merged_tensors": len(inputs.pool.merged),
        "base": described(inputs.base, sha256) if inputs.base else None,
        "models": [described(model, sha256) for model in inputs.models],
        **({"images": inputs.images} if inputs.images else {}),
        "created": now(),
        "versions": versions(),
    }


def described(source: Source, sha256: Mapping[Path, str]) -> dict[str, Any]:
    """A model's name, where it came from, and the SHA-256 of its files, or of the weights of a model of the zoo."""
    files = {path.name: sha256[path] for path in source.files}
    if not files and source.header:
        files = {"weights": source.header.base_sha256}
    return {"name": source.name, "source": source.spelled, "kind": source.kind, "sha256": files}
