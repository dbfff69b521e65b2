"""From the names and flags of the command line to methods and an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import UserError, unknown_name
from fewshot.method import Method
from fewshot.table import METHODS
from models.checkpoint import read_header
from models.selection import Selection, select_encoder

TUNING = "parallel-adapter"
GROUPS = ("training-free", "all")


def chosen_methods(names: Sequence[str] | None, adapter: Path | None, processes: int = 1) -> tuple[Method, ...]:
    """The methods of these names, in the order of the table; groups leave out what needs an adapter where there is none.

    Raises :class:`UserError` for a name that is not in the table, for a corrected method without an adapter, and for one that trains
    the towers in more than one process.
    """
    wanted = {name for each in names or GROUPS[:1] for name in _of_group(each, adapter)}
    methods = tuple(method for name, method in METHODS.items() if name in wanted)
    for method in methods:
        if method.needs_adapter and adapter is None:
            raise UserError(
                f"{method.name} compares images by adapted features; name the adapter that train_adapter.py wrote with --adapter."
            )
        if method.fit_with_images is not None and processes > 1:
            raise UserError(f"{method.name} trains the towers in one process, and {processes} were started; leave it out, or start one.")
    return methods


def _of_group(name: str, adapter: Path | None) -> Iterable[str]:
    if name in GROUPS:
        methods = [method for method in METHODS.values() if adapter is not None or not method.needs_adapter]
        return [method.name for method in methods if name == "all" or not method.trains]
    if name not in METHODS:
        raise unknown_name("method", name, [*METHODS, *GROUPS])
    return [name]


def chosen_encoder(model: str | None, adapter: Path | None) -> Selection:
    """The model as it was published, with the adapters of a checkpoint where one is named; these know their model.

    Raises :class:`UserError` for adapters of another model and for a checkpoint of another tuning.
    """
    if adapter is not None and (tuning := read_header(adapter).tuning) != TUNING:
        raise UserError(f"'{adapter}' is a checkpoint of the tuning '{tuning}'; --adapter takes a {TUNING}, which train_adapter.py trains.")
    return select_encoder(model, adapter, {})


def listing() -> str:
    """The methods, a line each: name, what it is, what it needs, paper."""
    width = max(map(len, METHODS))
    return "\n".join(f"{method.name:<{width}}  {method.description} [{_needs(method)}] ({method.paper})" for method in METHODS.values())


def _needs(method: Method) -> str:
    needs = ["--adapter"] if method.needs_adapter else []
    needs += ["trains the towers" if method.fit_with_images else "trains on features"] if method.trains else ["no training"]
    return ", ".join(needs)
