"""The tables [merging.methods.NAME] of a plan: by which methods it merges, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from common.errors import UserError, unknown_name
from merging.data_arguments import EXAMPLES
from merging.options import MergeOptions
from study.plan_keys import SWITCH, Kind, check_keys, elements
from study.plan_merging import MergingMethod
from study.plan_tunings import TUNING_NAME
from study.toml_lines import Place, TomlFile

if TYPE_CHECKING:
    from merging.method import Method

PLACE = ("merging", "methods")
OF_RUNS = ("device", "seed", "weights_file", "save_weights")  # which the study decides
MergeGrid = dict[str, tuple[Any, ...]]


def read_methods(file: TomlFile, tasks: tuple[str, ...]) -> tuple[MergingMethod, ...]:
    """Every method's table; ``tasks`` are those whose models are merged."""
    found = tuple(_method(file, label, tasks) for label in file.table(*PLACE))
    if not found:
        with file.at(*PLACE):
            raise UserError("[merging] merges by nothing; add a table for a method, e.g. [merging.methods.task_arithmetic].")
    return found


def _method(file: TomlFile, label: str, tasks: tuple[str, ...]) -> MergingMethod:
    place, table = (*PLACE, label), file.table(*PLACE, label)
    method = _named(file, label, table)
    read = [name for name in method.reads if name not in OF_RUNS]
    draws = ("examples",) if method.data != "none" and not method.transductive else ()
    check_keys(file, place, table, ("method", "per_model", *read, *draws))
    per_model = _per_model(file, label, table, method)
    given = {key: _values(file, (*place, key), value) for key, value in table.items() if key not in ("method", "per_model")}
    grid = {**_defaults(method, read, draws, per_model), **given}
    points = tuple(dict(zip(grid, point, strict=True)) for point in product(*grid.values()))
    for point in points:
        _check_point(file, place, method, point, tasks)
    varies = tuple(key for key, values in grid.items() if len(values) > 1)
    return MergingMethod(label, method.name, points, varies, per_model, method.transductive, method.data)


def _named(file: TomlFile, label: str, table: Mapping[str, Any]) -> Method:
    """Which method the table is about: its ``method``, or else its name."""
    from merging.table import METHODS

    with file.at(*PLACE, label, "method"):
        if not TUNING_NAME.fullmatch(label):
            raise UserError(f"The name '{label}' of a method's table becomes part of file names; use letters, digits, - and _.")
        if (name := table.get("method", label)) not in METHODS:
            unknown = str(unknown_name("merging method", str(name), METHODS)).rstrip(".")
            raise UserError(unknown + ("." if "method" in table else ' (a table with a name of its own says which: method = "ties").'))
    return METHODS[name]


def _per_model(file: TomlFile, label: str, table: Mapping[str, Any], method: Method) -> bool:
    with file.at(*PLACE, label, "per_model"):
        asked = bool(SWITCH.check("per_model", table.get("per_model", False)))
        if asked and method.per_model is None:
            raise UserError(f"{method.name} gives one encoder for all tasks; leave 'per_model' out.")
    return asked


def _defaults(method: Method, read: list[str], draws: tuple[str, ...], per_model: bool) -> MergeGrid:
    """What the method does where the plan does not say otherwise. None stands for what the method's paper published."""
    found = {name: getattr(MergeOptions(), name) for name in read} | dict.fromkeys(draws, EXAMPLES)
    if "scaling" in found:
        found["scaling"] = method.per_model_scaling if per_model else method.default_scaling
    return {name: (in_json(value),) for name, value in found.items()}


def _values(file: TomlFile, place: Place, value: Any) -> tuple[Any, ...]:
    """All values of a list, or the only one; of an option that is a list itself all of a list of lists."""
    kind = KINDS[str(place[-1])]
    if isinstance(value, list) and (not kind.fits(value) or (value and isinstance(value[0], list))):
        return elements(file, place, value, kind.check)
    with file.at(*place):
        return (kind.check(str(place[-1]), value),)


def _check_point(file: TomlFile, place: Place, method: Method, point: Mapping[str, Any], tasks: tuple[str, ...]) -> None:
    """What merge.py would refuse before it opens a model: values out of range, or that do not go together."""
    try:
        options = merge_options(point)
        if method.routed:
            from merging.wemoe.method import options_for

            options_for(method.name, options)
    except UserError as error:
        wrong = next((key for key in point if f"--{key.replace('_', '-')} " in str(error)), "")
        with file.at(*place, *([wrong] if wrong else [])):
            raise UserError(_as_keys(str(error), point)) from error
    if options.weights is not None and len(options.weights) != len(tasks):
        with file.at(*place, "weights"):
            raise UserError(f"'weights' has {len(options.weights)} numbers for {len(tasks)} models; it takes one for each.")


def _as_keys(message: str, point: Mapping[str, Any]) -> str:
    """A message about flags, as a plan spells them."""
    for key in sorted(point, key=len, reverse=True):
        message = message.replace(f"--{key.replace('_', '-')}", f"'{key}'")
    return message


def merge_options(point: Mapping[str, Any], **of_run: Any) -> MergeOptions:
    """The options of a point, and what the run adds to them; raises :class:`UserError` for a value out of range."""
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in point.items() if key != "examples"}
    return MergeOptions(**given, **of_run)


def in_json(value: Any) -> Any:
    """The value in JSON's types."""
    return list(value) if isinstance(value, tuple) else value


def _kinds() -> dict[str, Kind]:
    hints = get_type_hints(MergeOptions)
    return {field.name: _kind(hints[field.name]) for field in fields(MergeOptions)} | {
        "examples": Kind("a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
    }


def _kind(hint: Any) -> Kind:
    """What a key takes, from the type of the option."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if hint is bool:
        return SWITCH
    if hint is int:
        return Kind("a whole number", _is_whole)
    if hint is float:
        return Kind("a number", _is_number, convert=float)
    if get_origin(hint) is Literal:
        return Kind(f"one of {', '.join(get_args(hint))}", lambda value: isinstance(value, str), get_args(hint))
    if get_origin(hint) is tuple:
        return Kind("a list of numbers", _is_numbers, convert=lambda values: [float(value) for value in values])
    return Kind("a text in quotes", lambda value: isinstance(value, str))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


KINDS = _kinds()
