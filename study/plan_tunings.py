"""The tables [training] and [tunings.NAME] of a plan: which trainings are to be tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any

from common.errors import UserError, unknown_name
from models.tuning_options import TUNING_NAMES, TuningOptions, all_options_of
from study.plan import FitSetting, Setting, TuningPlan
from study.plan_keys import FIT_KEYS, OPTION_KEYS, TUNING, check_keys, elements
from study.toml_lines import Place, TomlFile

TUNING_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # becomes part of file names

Grid = dict[str, tuple[Any, ...]]  # the values to try of every key that the file has


def read_tunings(file: TomlFile) -> tuple[TuningPlan, ...]:
    """The tunings of all tables [tunings.NAME], each with what [training] says where it does not say otherwise."""
    training, tunings = file.table("training"), file.table("tunings")
    check_keys(file, ("training",), training, FIT_KEYS)
    defaults = grid_of(file, ("training",), training)
    if "training" in file.data and not tunings:
        with file.at("training"):
            raise UserError("[training] is for tunings, of which there are none; add a table, e.g. [tunings.lora].")
    return tuple(_tuning(file, name, defaults) for name in tunings)


def _tuning(file: TomlFile, name: str, defaults: Grid) -> TuningPlan:
    place, table = ("tunings", name), file.table("tunings", name)
    tuning = _kind(file, name, table)
    check_keys(file, place, table, ("tuning", *FIT_KEYS, *all_options_of(tuning)))
    own = grid_of(file, place, {key: value for key, value in table.items() if key != "tuning"})
    outdone = {"epochs": "steps", "steps": "epochs"}  # of what [training] says, by the table's own
    shared = {key: values for key, values in defaults.items() if outdone.get(key) not in own}
    return TuningPlan(name, tuning, settings({**shared, **own}))


def _kind(file: TomlFile, name: str, table: Mapping[str, Any]) -> str:
    """Which tuning the table [tunings.NAME] is about: its ``tuning``, or else its name."""
    with file.at("tunings", name, "tuning"):
        if not TUNING_NAME.fullmatch(name):
            raise UserError(f"The name '{name}' of a tuning becomes part of file names; use letters, digits, - and _.")
        if "tuning" in table:
            return str(TUNING.check("tuning", table["tuning"]))
        if name not in TUNING_NAMES:
            unknown = str(unknown_name("tuning", name, TUNING_NAMES))
            raise UserError(f'{unknown.rstrip(".")} (a table with a name of its own says which, as in tuning = "lora").')
    return name


def grid_of(file: TomlFile, place: Place, table: Mapping[str, Any]) -> Grid:
    """The values of a table's keys, which must be those of trainings and tunings."""
    if "steps" in table and "epochs" in table:
        with file.at(*place, "steps"):
            raise UserError("'steps' and 'epochs' both say how long to train; give one of them.")
    kinds = {**FIT_KEYS, **OPTION_KEYS}
    return {key: _values(file, (*place, key), value, kinds[key].check) for key, value in table.items()}


def _values(file: TomlFile, place: Place, value: Any, check: Any) -> tuple[Any, ...]:
    """All values of a list, or the only one."""
    if isinstance(value, list):
        return elements(file, place, value, check)
    with file.at(*place):
        return (check(str(place[-1]), value),)


def settings(grid: Grid) -> tuple[Setting, ...]:
    """The product of all lists; the last key runs fastest."""
    varies = tuple(key for key, values in grid.items() if len(values) > 1)
    return tuple(_setting(dict(zip(grid, point, strict=True)), varies) for point in product(*grid.values()))


def _setting(point: dict[str, Any], varies: tuple[str, ...]) -> Setting:
    options = TuningOptions(**{key: value for key, value in point.items() if key in OPTION_KEYS})
    return Setting(options, FitSetting(**{key: value for key, value in point.items() if key in FIT_KEYS}), varies)
