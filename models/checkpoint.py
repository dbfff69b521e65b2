"""Checkpoints: what a tuning trained, and a header with all that is needed to rebuild the encoder around it.

A checkpoint is one safetensors file. Its tensors are the parameters that were trained, by their names in the
:class:`~models.encoder.Encoder`; its header's metadata is a :class:`CheckpointHeader`. Loading builds the base encoder named in
the header, makes sure that its weights are those that were tuned, applies the tuning and fills in the tensors.

Whole state dicts of open_clip models (.safetensors, .pt, .pth, .bin) load too, as the tuning ``full`` of a model that the
caller must name; of the pickled ones only those that hold nothing but tensors.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import sha256_of_file
from common.provenance import now, versions
from models.encoder import Encoder
from models.loading import load_encoder
from models.tensors import PICKLE_STARTS, read_metadata, read_safetensors, sha256_of_tensors, write_safetensors
from models.tuning_options import TuningOptions, flag
from models.tunings import apply_tuning, stored_parameters, trained_parameters
from models.zoo import canonical_name

FORMAT = "clipscope-checkpoint/1"
PICKLES = (".pt", ".pth", ".bin")
PLAIN = frozenset({"format", "model", "tuning", "task", "split", "base_sha256", "created"})  # strings; the others are JSON

# What is no tuning of an encoder but another network on its weights, by "module:function" that takes (path, encoder, header): it is
# imported when such a checkpoint is read, so that nothing here depends on it.
RESTORERS = {"wemoe": "merging.wemoe.checkpoint:restore"}

checkpoint_sha256 = sha256_of_file


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself.

    ``options`` are the hyper-parameters that the tuning reads (:data:`models.tuning_options.TUNING_OPTIONS`); ``settings`` are
    those of the training, free in form. ``classnames`` are those that were trained on, in the order of a probe's outputs;
    ``epoch`` counts from 1, 0 is before the first; ``base_sha256`` is :func:`base_sha256` before the tuning, empty when unknown.
    """

    model: str
    tuning: str
    base_sha256: str
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    split: str = ""
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    epoch: int = 0
    val_accuracy: float | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)
    versions: Mapping[str, str] = field(default_factory=versions)
    format: str = FORMAT

    def to_metadata(self) -> dict[str, str]:
        """The header as a safetensors file's metadata: strings, JSON where structured."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value if name in PLAIN else json.dumps(value, ensure_ascii=False) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> CheckpointHeader:
        """The inverse of :meth:`to_metadata`. Raises ValueError or KeyError for what it cannot have written."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            text = metadata[each.name]
            value = text if each.name in PLAIN else json.loads(text)
            values[each.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def tuning_options(self) -> TuningOptions:
        """The hyper-parameters to apply the tuning with."""
        return TuningOptions(**self.options, seed=self.seed)


def make_header(
    encoder: Encoder,
    tuning: str,
    options: TuningOptions,
    base: str,
    *,
    task: str = "",
    split: str = "",
    classnames: Sequence[str] = (),
    templates: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> CheckpointHeader:
    """The header of ``encoder`` before its first epoch; ``base`` is :func:`base_sha256` from before the tuning.

    ``dataclasses.replace(header, epoch=..., val_accuracy=...)`` makes the later ones.
    """
    return CheckpointHeader(
        model=canonical_name(encoder.source.name),
        tuning=tuning,
        base_sha256=base,
        options=options.read_by(tuning),
        task=task,
        split=split,
        classnames=tuple(classnames),
        templates=tuple(templates),
        seed=options.seed,
        settings=settings or {},
    )


def base_sha256(encoder: Encoder) -> str:
    """SHA-256 over the names and values of the model's weights and buffers, to be asked before a tuning is applied."""
    if trained_parameters(encoder):
        raise ValueError("the base weights are hashed before a tuning is applied")
    return sha256_of_tensors(encoder.model.state_dict())


def save_checkpoint(path: Path, encoder: Encoder, header: CheckpointHeader) -> None:
    """Write what was tuned in ``encoder``, with ``header``, to ``path``; atomic. Raises :class:`UserError` when it cannot."""
    write_safetensors(path, stored_parameters(encoder), header.to_metadata())


def read_header(path: Path) -> CheckpointHeader:
    """The header of a checkpoint, without its tensors; :class:`UserError` for a file that is no checkpoint of clipscope."""
    if path.suffix in PICKLES and path.is_file():
        raise _without_header(path)
    return _header(path, read_metadata(path))


def load_checkpoint(
    path: Path,
    *,
    model: str | None = None,
    tuning: str | None = None,
    given: Mapping[str, object] | None = None,
) -> tuple[Encoder, CheckpointHeader]:
    """The encoder that a checkpoint holds, on the CPU, with what was trained marked as training; and the header.

    ``model``, ``tuning`` and ``given`` (hyper-parameters by name) are the flags that the user typed; None stands for one
    that was not. Each raises :class:`UserError` when the header says otherwise. So do base weights that are not those
    that were tuned, tensors that do not fit, and damaged files. A file without a header needs ``model``.
    """
    if path.suffix in PICKLES or not _has_header(path):
        return _load_state_dict(path, model, tuning)
    header = read_header(path)
    _refuse_contradictions(path, header, model, tuning, given or {})
    encoder = load_encoder(header.model)
    if base_sha256(encoder) != header.base_sha256:
        raise UserError(f"The base weights of '{header.model}' are not those that '{path}' was tuned from.")
    if header.tuning in RESTORERS:
        _restorer(header.tuning)(path, encoder, header)
        return encoder, header
    _apply(path, encoder, header)
    _fill(path, stored_parameters(encoder), read_safetensors(path)[0])
    return encoder, header


def _restorer(name: str) -> Callable[[Path, Encoder, CheckpointHeader], None]:
    module, _, function = RESTORERS[name].partition(":")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def _has_header(path: Path) -> bool:
    return read_metadata(path).get("format", "").startswith("clipscope-")


def _header(path: Path, metadata: Mapping[str, str]) -> CheckpointHeader:
    kind = metadata.get("format", "")
    if not kind.startswith("clipscope-"):
        raise _without_header(path)
    if kind != FORMAT:
        raise UserError(f"'{path}' is of the format '{kind}'; a checkpoint of the format '{FORMAT}' is expected.")
    try:
        return CheckpointHeader.from_metadata(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The header of '{path}' is damaged: {type(error).__name__} {error}.") from error


def _without_header(path: Path) -> UserError:
    return UserError(f"'{path}' was not written by clipscope and does not say which model it belongs to; name it, e.g. --model-name clip.")


def _refuse_contradictions(
    path: Path, header: CheckpointHeader, model: str | None, tuning: str | None, given: Mapping[str, object]
) -> None:
    """A flag may repeat what the header says; a different value, or one that the tuning does not read, is a mistake."""
    if model is not None and canonical_name(model) != canonical_name(header.model):
        raise UserError(f"The model '{model}' contradicts '{path}', which was trained from '{header.model}'; leave the flag out.")
    if tuning is not None and tuning != header.tuning:
        raise UserError(f"The tuning '{tuning}' contradicts '{path}', which was trained with '{header.tuning}'; leave the flag out.")
    for name, value in given.items():
        if value is None:
            continue
        if name not in header.options:
            raise UserError(f"{flag(name)} has no meaning for '{path}', which was trained with '{header.tuning}'; leave the flag out.")
        if value != header.options[name]:
            stored = header.options[name]
            raise UserError(f"{flag(name)} {value} contradicts '{path}', which was trained with {name} {stored}; leave the flag out.")


def _apply(path: Path, encoder: Encoder, header: CheckpointHeader) -> None:
    """Apply the header's tuning; what it draws at the start is overwritten, so a probe need not be given text embeddings."""
    try:
        options = header.tuning_options()
    except TypeError as error:
        raise UserError(f"The header of '{path}' is damaged: {error}.") from error
    if header.tuning == "probe" and not header.classnames:
        raise UserError(f"The header of '{path}' is damaged: a probe without class names.")
    apply_tuning(encoder, header.tuning, replace(options, probe_init="random"), classnames=header.classnames)


def _fill(path: Path, targets: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy ``stored`` into ``targets`` once all names and shapes agree; the first that does not is told."""
    missing = [name for name in targets if name not in stored]
    if missing:
        raise UserError(f"'{path}' does not fit the model: it lacks {_first(missing)}.")
    unexpected = [name for name in stored if name not in targets]
    if unexpected:
        raise UserError(f"'{path}' does not fit the model, which has no place for {_first(unexpected)}.")
    for name, target in targets.items():
        if stored[name].shape != target.shape:
            raise UserError(f"'{path}' does not fit the model: '{name}' is {_shape(stored[name])}, not {_shape(target)}.")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(stored[name])


def _first(names: list[str]) -> str:
    return f"'{names[0]}'" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _load_state_dict(path: Path, model: str | None, tuning: str | None) -> tuple[Encoder, CheckpointHeader]:
    """A whole state dict of the open_clip model that the user named, as the tuning ``full``."""
    stored = _read_pickle(path) if path.suffix in PICKLES else read_safetensors(path)[0]
    if tuning not in (None, "full"):
        raise UserError(f"'{path}' was not written by clipscope; it can only hold whole weights, not the tuning '{tuning}'.")
    if model is None:
        raise _without_header(path)
    encoder = load_encoder(model)
    base = base_sha256(encoder)
    _fill(path, encoder.model.state_dict(), _without_decoder(_unwrapped(stored)))
    apply_tuning(encoder, "full", TuningOptions())
    return encoder, make_header(encoder, "full", TuningOptions(), base)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save``, which may lie under ``state_dict``; never runs code from the file."""
    if not path.is_file():
        raise UserError(f"No such file: '{path}'.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of archives and protocols that are about to be refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly every type
        raise _refused(path, error) from error
    if isinstance(found, dict):
        found = found.get("state_dict", found)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"'{path}' holds no state dict; a mapping from names to tensors is expected, by itself or under 'state_dict'.")
    return found


def _refused(path: Path, error: Exception) -> UserError:
    """A pickle that names anything but tensors and plain containers, or a file that is no whole pickle at all."""
    with path.open("rb") as stream:
        is_pickle = stream.read(4).startswith(PICKLE_STARTS)
    if is_pickle and (isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error)):
        return UserError(f"'{path}' was not loaded: reading it would run code stored in it; save it as safetensors.")
    return UserError(f"'{path}' is not a readable PyTorch file; it is truncated or damaged.")


def _unwrapped(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the ``module.`` that data-parallel training puts before them."""
    if all(name.startswith("module.") for name in stored):
        return {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    return stored


def _without_decoder(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """CoCa's caption decoder is no part of an encoder."""
    return {name: tensor for name, tensor in stored.items() if not name.startswith("text_decoder.")}
