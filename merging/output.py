"""Where a merge is written and in what form: that of the base."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import UserError
from common.files import is_temporary, read_json, replacing
from merging.sources import Source
from merging.stream import TensorWriter
from merging.weights import is_finite

RECORD = "clipscope_merge"  # the header's key of what was merged how
SINGLE = "model.safetensors"
FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # what ends so names a file; a folder's name may have dots too


@dataclass(frozen=True)
class Target:
    """One output: a safetensors file, or with ``folder`` a Hugging Face folder around it.

    ``stored`` gives the name in the file of each of the reference's tensors that it holds.
    """

    path: Path
    reference: Source
    stored: Mapping[str, str]
    folder: Path | None = None

    @property
    def shown(self) -> Path:
        """What the user called it."""
        return self.folder or self.path

    def metadata(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The header's metadata: a checkpoint's, with the record among its settings, or the base file's with the record added."""
        header = self.reference.header
        if header is None:
            return {**(self.reference.metadata or {}), RECORD: json.dumps(record, ensure_ascii=False)}
        merged = type(header)(header.model, "full", header.base_sha256, settings={RECORD: record}, created=record["created"])
        return merged.to_metadata()


def target_of(out: Path, reference: Source) -> Target:
    """Where and how a merge onto ``reference`` is written to ``out``.

    A Hugging Face base gives a folder like its own unless ``out`` ends like a file, a model of the zoo a checkpoint of clipscope, any
    other base a safetensors file. Raises :class:`UserError` for another suffix, and for a base folder whose configuration is damaged.
    """
    as_folder = reference.folder is not None and out.suffix not in FILES
    if not as_folder and out.suffix != ".safetensors":
        folder = ", or a folder for a Hugging Face model" if reference.folder else ""
        raise UserError(f"--out '{out}' does not end in .safetensors, the only format that is written{folder}.")
    if out.is_dir() and not as_folder:
        raise UserError(f"'{out}' is a folder; --out names a file.")
    if as_folder:
        _check_configuration(reference)
    names = reference.parameters or tuple(reference.specs)
    prefix = "model." if reference.header else ""
    stored = {name: prefix + name for name in names}
    return Target(out / SINGLE if as_folder else out, reference, stored, out if as_folder else None)


def check_free(target: Target, overwrite: bool) -> None:
    """UserError for an output that exists, unless ``overwrite``."""
    if target.shown.exists() and not overwrite and not (target.folder and _left_by_a_kill(target.folder, target.reference)):
        raise UserError(f"'{target.shown}' exists; --overwrite replaces it.")


def check_no_input(out: Path, sources: Iterable[Source]) -> None:
    """UserError for an output that is a file of one of the models: the merge could not be made again."""
    for source in sources:
        if out.resolve() in [file.resolve() for file in source.files]:
            raise UserError(f"'{out}' is the model '{source.name}', which is merged; name another --out.")


def targets_in(folder: Path, names: list[str], reference: Source) -> list[Target]:
    """One target for each model, in ``folder``: NAME.safetensors, or a Hugging Face folder NAME."""
    if folder.suffix in FILES or folder.is_file():
        raise UserError(f"--out '{folder}' should be a folder: --per-model writes one encoder for each model into it.")
    suffix = "" if reference.folder else ".safetensors"
    return [target_of(folder / f"{name}{suffix}", reference) for name in names]


@contextmanager
def writing(target: Target, record: Mapping[str, Any]) -> Iterator[Output]:
    """An output whose tensors are written one by one; it is there when the block has ended well, or not at all.

    The weights of a folder appear last, so that one that has weights is whole.
    """
    made = [folder for folder in (target.path.parent, *target.path.parent.parents) if not folder.exists()]
    beside = [target.path.parent / path.name for path in configuration(target.reference)] if target.folder else []
    new = [path for path in beside if not path.exists()]
    specs = {stored: target.reference.specs[name] for name, stored in target.stored.items()}
    try:
        with TensorWriter(target.path, specs, target.metadata(record)) as writer:
            yield Output(target, writer)
            if target.folder is not None:
                copy_configuration(target)
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


@dataclass(frozen=True)
class Output:
    """A target that is being written."""

    target: Target
    writer: TensorWriter

    def copy(self, name: str) -> None:
        """Write the reference's own tensor; UserError when it holds NaN, as every encoder made with it would."""
        own = self.target.reference.read(name)
        if own.is_floating_point() and not is_finite(own) and bool(own.isnan().any()):  # masks hold -inf
            raise UserError(f"The tensor '{name}' of '{self.target.reference.name}' holds NaN; fetch or train that model anew.")
        self.writer.write(self.target.stored[name], own)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a merged tensor in the reference's dtype; UserError when it does not go into it."""
        stored = self.target.stored[name]
        own = tensor.to(self.writer.specs[stored].dtype)
        if not is_finite(own):
            raise UserError(f"The merged tensor '{name}' holds NaN or infinity as {own.dtype}; a smaller --scaling may be meant.")
        self.writer.write(stored, own)


def copy_configuration(target: Target) -> None:
    """The base's configuration, tokenizer and preprocessing beside the weights."""
    assert target.folder is not None
    for path in configuration(target.reference):
        with replacing(target.folder / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())


def configuration(reference: Source) -> list[Path]:
    """What a Hugging Face folder holds besides weights."""
    assert reference.folder is not None
    files = sorted(reference.folder.iterdir())
    return [path for path in files if path.suffix in (".json", ".txt") and not path.name.endswith(".index.json")]


def _check_configuration(reference: Source) -> None:
    """Refuse, before the work, a folder that would not load after it."""
    files = configuration(reference)
    if not any(path.name == "config.json" for path in files):
        raise UserError(f"'{reference.folder}' lacks its config.json; fetch it, or name a file with --out: FILE.safetensors.")
    for path in files:
        if path.suffix == ".json":
            read_json(path)


def _left_by_a_kill(folder: Path, reference: Source) -> bool:
    """Whether a folder holds nothing but what :func:`writing` puts there before the weights."""
    known = {path.name: path for path in configuration(reference)}
    return folder.is_dir() and all(
        is_temporary(path) or (path.name in known and path.read_bytes() == known[path.name].read_bytes()) for path in folder.iterdir()
    )
