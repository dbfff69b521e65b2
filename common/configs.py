"""Presets: TOML files that give a script's flags, which the command line overrides.

A key is a flag's name with underscores or dashes, a value is what follows the flag: text in quotes, a number, true or false, a list where
the flag takes several::

    # configs/oti/clip_vitb32.toml
    model_name = "clip"
    oti_steps = 150
    learning_rate = 2e-2

``python oti.py --config configs/oti/clip_vitb32.toml --oti-steps 50`` runs 50 steps. All of it is checked before anything runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import stages
from common.errors import UserError, nearest, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_with_config(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``parser.parse_args(argv)`` with one more flag, ``--config FILE``; what the file gives counts where the flag is not typed.

    A flag that the parser requires may come from the file. Raises :class:`UserError` that names file and key for a key that is no
    flag (with the nearest one), and for a value of another type or range than the flag's.
    """
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file that gives flags; those that are typed come before it")
    required = [action for action in parser._actions if action.required]
    path: Path | None = _parsed(parser, argv, required).config
    if path is None:
        return parser.parse_args(argv)
    given = read_config(path, parser)
    for action in given:  # what is not typed is absent then, whatever the kind of flag
        action.default = argparse.SUPPRESS
        parser._defaults.pop(action.dest, None)  # those of set_defaults
    args = _parsed(parser, argv, [action for action in required if action in given])
    for action, value in given.items():
        if not hasattr(args, action.dest):
            setattr(args, action.dest, value)
    stages.begin(getattr(args, "profile", False))
    return args


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None, optional: list[argparse.Action]) -> argparse.Namespace:
    """The command line, with flags that are required but for this time."""
    for action in optional:
        action.required = False
    try:
        return parser.parse_args(argv)
    finally:
        for action in optional:
            action.required = True


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[argparse.Action, Any]:
    """What the file ``path`` gives for flags of ``parser``, each checked and converted as if it had been typed."""
    flags = {name[2:].replace("-", "_"): action for name, action in parser._option_string_actions.items() if name.startswith("--")}
    flags = {key: action for key, action in flags.items() if key not in ("help", "config")}
    given: dict[argparse.Action, Any] = {}
    for key, value in _read_toml(path).items():
        action = flags.get(key.replace("-", "_"))
        if action is None:
            raise UserError(f"{path}: {unknown_name('key', key, flags)}")
        if action in given:
            raise UserError(f"{path}: '{key}' is given twice.")
        given[action] = _converted(parser, action, f"{path}: '{key}'", value)
    return given


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        guess = nearest(path.name, [other.name for other in path.parent.glob("*.toml")])
        hint = f"did you mean '{path.with_name(guess)}'?" if guess else "--config takes a TOML file."
        raise UserError(f"There is no file '{path}'; {hint}") from error
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # not TOML or UTF-8; numbers or nesting without end
        raise UserError(f"'{path}' is not valid TOML: {error}.") from error


def _converted(parser: argparse.ArgumentParser, action: argparse.Action, place: str, value: Any) -> Any:
    """The value as the flag has it after parsing; ``place`` begins the sentence about a wrong one."""
    if action.nargs == 0 or action.const is True:  # --flag, or --flag [True|False]
        return _of_type(place, value, bool, "true or false")
    if action.nargs in ("+", "*") or isinstance(action.nargs, int) or isinstance(action, argparse._AppendAction):
        return _many(parser, action, place, _of_type(place, value, list, "a list"))
    return _one(parser, action, place, value)


def _many(parser: argparse.ArgumentParser, action: argparse.Action, place: str, values: list[Any]) -> list[Any]:
    if isinstance(action.nargs, int) and len(values) != action.nargs:
        raise UserError(f"{place} must have {action.nargs} values, not {len(values)}.")
    if not values and action.nargs != "*":
        raise UserError(f"{place} must have at least one value.")
    return [_one(parser, action, place, value) for value in values]


def _one(parser: argparse.ArgumentParser, action: argparse.Action, place: str, value: Any) -> Any:
    """One value, through the flag's own type and choices."""
    if action.type in (None, str, Path):
        text = _of_type(place, value, str, "text in quotes")
    else:
        text = str(_of_type(place, value, (str, int, float), "a number or text"))
    try:
        converted = parser._get_value(action, text)
        parser._check_value(action, converted)
    except argparse.ArgumentError as error:
        raise UserError(f"{place}: {error.message}.") from error
    if isinstance(converted, int | float) and isinstance(value, str):
        raise UserError(f"{place} must be a number, without quotes, not '{value}'.")
    return converted


def _of_type(place: str, value: Any, kinds: Any, expected: str) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise UserError(f"{place} must be {expected}, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    """A value as the message names it."""
    if isinstance(value, dict):
        return "a table"
    return str(value).lower() if isinstance(value, bool) else repr(value)
