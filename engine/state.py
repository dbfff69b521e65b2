"""The state of an unfinished training run: everything needed to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from models.tensors import read_safetensors, write_safetensors

FORMAT = "clipscope-training/1"


@dataclass
class Progress:
    """How far a run has come. ``epoch`` and ``step`` (optimizer steps within it) name the next step to do."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # over the samples seen in this epoch
    seconds: float = 0.0  # spent on this run so far, all attempts together
    best_accuracy: float = -1.0
    best_epoch: int = 0
    before: float | None = None  # validation accuracy before the first step
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per finished epoch
    unreadable: dict[str, str] = field(default_factory=dict)  # sample id -> reason, of all images met so far


def save_state(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    progress: Any,
    settings: Mapping[str, Any],
) -> None:
    """Write parameters, optimizer, gradient scaler and progress, a dataclass such as :class:`Progress`, to one safetensors file.

    ``parameters`` are those of the optimizer in its order; behind them may stand tensors that change without it.
    """
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, moment in optimizer.state.get(value, {}).items():
            if isinstance(moment, Tensor):
                tensors[f"optimizer/{key}/{name}"] = moment
    described = {
        "format": FORMAT,
        "progress": json.dumps(asdict(progress)),
        "settings": json.dumps(dict(settings), sort_keys=True),
        "scaler": json.dumps(scaler.state_dict() if scaler is not None else {}),
    }
    write_safetensors(path, tensors, {**described, "header_sha256": _digest(described)})


def _digest(described: Mapping[str, str]) -> str:
    """The tensors have a checksum of their own; this is that of what stands beside them."""
    return hashlib.sha256(json.dumps(dict(described), sort_keys=True).encode()).hexdigest()


def load_state(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    settings: Mapping[str, Any],
    kind: Callable[..., Any] = Progress,
) -> Any:
    """Read what :func:`save_state` wrote back into parameters, optimizer and scaler, in place; return the progress, of its ``kind``.

    Raises :class:`UserError` when the file is damaged or was written by a run with other settings.
    """
    tensors, described = read_safetensors(path)
    if described.get("format") != FORMAT:
        raise UserError(f"'{path}' is not the state of a training run of this version; delete it, or start anew with --overwrite.")
    if described.pop("header_sha256", None) != _digest(described):
        raise UserError(f"'{path}' is damaged or was edited; delete it, or start anew with --overwrite.")
    _check_settings(path, json.loads(described["settings"]), settings)
    _restore_parameters(path, parameters, tensors)
    _restore_optimizer(list(parameters), optimizer, tensors)
    if scaler is not None:
        scaler.load_state_dict(json.loads(described["scaler"]))
    return kind(**json.loads(described["progress"]))


def _check_settings(path: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(settings)))
    for key in sorted({*stored, *wanted}):
        if stored.get(key) != wanted.get(key):
            raise UserError(
                f"'{path}' belongs to a run with {key} = {stored.get(key)}, not {wanted.get(key)}; "
                "use the same flags and data, or start anew with --overwrite."
            )


def _restore_parameters(path: Path, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    stored = {name.removeprefix("parameter/") for name in tensors if name.startswith("parameter/")}
    if stored != set(parameters):
        raise UserError(f"'{path}' holds other parameters than this run trains; start anew with --overwrite.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])


def _restore_optimizer(names: list[str], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for stored, tensor in tensors.items():
        if stored.startswith("optimizer/"):
            _, key, name = stored.split("/", 2)
            state.setdefault(names.index(name), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
