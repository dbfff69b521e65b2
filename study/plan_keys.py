"""The keys of a plan and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from common.errors import UserError, unknown_name
from engine.schedule import SCHEDULES
from models.tuning_options import PROBE_INITS, TOWERS, TUNING_NAMES, readers_of
from study.plan_inversion import PROJECTIONS
from study.toml_lines import Place, TomlFile

OPTIMIZERS = ("SGD", "Adam", "AdamW")  # those of engine.fit, which needs torch
AUGMENTATIONS = ("none", "crop", "crop-flip")  # those of models.augment


@dataclass(frozen=True)
class Kind:
    """What a key takes; ``choices`` where only some names do."""

    expected: str
    fits: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    convert: Callable[[Any], Any] = lambda value: value

    def check(self, key: str, value: Any) -> Any:
        """``value``, or a :class:`UserError` that says what is expected instead."""
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise unknown_name(key.replace("_", " "), value, self.choices)
        if not self.fits(value):
            raise UserError(f"'{key}' must be {self.expected}, not {shown(value)}.")
        return self.convert(value)


def shown(value: Any) -> str:
    """A value as a message names it."""
    if isinstance(value, dict | list):
        kind = "table" if isinstance(value, dict) else "list"
        return f"a {kind}" if value else f"an empty {kind}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def _whole(least: int) -> Kind:
    return Kind(f"a whole number of at least {least}", lambda value: _is_number(value) and isinstance(value, int) and value >= least)


def _number(expected: str, fits: Callable[[float], bool]) -> Kind:
    return Kind(expected, lambda value: _is_number(value) and fits(value), convert=float)  # 1 and 1.0 are one setting


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63  # which NaN is not


def _one_of(names: Iterable[str]) -> Kind:
    choices = tuple(names)
    return Kind(f"one of {', '.join(choices)}", lambda value: isinstance(value, str), choices)


def elements(file: TomlFile, place: Place, values: Any, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """The checked elements of the list at ``place``; an empty list, and one that says something twice, are mistakes."""
    key, checked = str(place[-1]), list[Any]()
    if not isinstance(values, list) or not values:
        with file.at(*place):
            raise UserError(f"'{key}' must be a list of at least one value, not {shown(values)}.")
    for number, value in enumerate(values):
        with file.at(*place, number):
            result = check(key, value)
            if result in checked:
                raise UserError(f"'{key}' has {shown(value)} twice{'' if result == value else f', also as {shown(result)}'}.")
            checked.append(result)
    return tuple(checked)


TEXT = Kind("a text in quotes", lambda value: isinstance(value, str) and bool(value.strip()))
NAME = Kind("a name in quotes", lambda value: TEXT.fits(value) and value.isprintable())
SEED = _whole(0)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
SHARE = _number("a number between 0 and 1, both left out", lambda value: 0 < value < 1)
TUNING = _one_of(TUNING_NAMES)
_POSITIVE = _number("a number above 0", lambda value: value > 0)

FIT_KEYS: dict[str, Kind] = {  # the fields of study.plan.FitSetting
    "epochs": _whole(1),
    "steps": _whole(1),
    "lr": _POSITIVE,
    "wd": _number("a number of at least 0", lambda value: value >= 0),
    "optimizer": _one_of(OPTIMIZERS),
    "beta2": SHARE,
    "schedule": _one_of(SCHEDULES),
    "warmup": _whole(0),
    "clip_norm": _POSITIVE,
    "batch_size": _whole(1),
    "accumulate": _whole(1),
    "augment": _one_of(AUGMENTATIONS),
}
OPTION_KEYS: dict[str, Kind] = {  # the fields of models.tuning_options.TuningOptions, less the seed
    "rank": _whole(1),
    "lora_scale": _number("a finite number", lambda value: True),
    "lora_mlp": SWITCH,
    "lora_targets": Kind('a text such as "q,k,v,out,mlp"', lambda value: isinstance(value, str)),
    "towers": _one_of(TOWERS),
    "train_blocks": _whole(1),
    "reduction": _whole(1),
    "adapter_ratio": _number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "bottleneck": _whole(1),
    "adapter_scale": _number("a finite number", lambda value: True),
    "adapter_dropout": _number("a number from 0 to less than 1", lambda value: 0 <= value < 1),
    "probe_init": _one_of(PROBE_INITS),
}
TOP_KEYS = (
    *("title", "about", "models", "tasks", "eval_tasks", "tuned_models", "seeds", "measures", "predictor", "components"),
    *("data_dir", "prompts", "val_p", "published", "training", "tunings", "inversion", "merging"),
)
REQUIRED_KEYS = ("title", "models", "tasks", "measures")
INVERSION_KEYS = ("image_tasks", "text_tasks", "zero_shot_tasks", "misalignment", "project", "fuse", "seeds", "oti", "ovi", "models")
PSEUDO_TOKENS = _whole(1)
SETTING_KEYS: dict[str, Kind] = {  # the fields of study.plan_inversion.InversionSetting, less kind, number of pseudo-tokens and seed
    "steps": _whole(1),
    "lr": _POSITIVE,
    "weight_decay": _number("a number of at least 0", lambda value: value >= 0),
    "template": Kind("a text with {} once", lambda value: isinstance(value, str) and value.count("{}") == 1),
    "snapshots": _whole(0),  # 0: before the first
}
MODEL_KEYS = ("oti_pseudo_tokens", "ovi_pseudo_tokens", "iso_image", "iso_text")
DIRECTIONS = _whole(0)
MERGING_KEYS = ("tasks", "eval_tasks", "corruptions", "fine_tunes", "models", "train", "methods")
PROJECTION = _one_of(PROJECTIONS)


def check_keys(file: TomlFile, place: Place, keys: Iterable[str], known: Iterable[str]) -> None:
    """Every one of ``keys``, those of the table at ``place``, must be known there."""
    known = tuple(known)
    for key in keys:
        if key not in known:
            with file.at(*place, key):
                raise _unknown_key(key, known, f"[{'.'.join(map(str, place))}]" if place else "the top of a plan")


def _unknown_key(key: str, known: Iterable[str], table: str) -> UserError:
    """The error for a key that ``table`` does not have: where it belongs, or else the nearest one."""
    if readers := readers_of(key):
        return UserError(f"'{key}' means nothing in {table}; it belongs in the table of the tuning {' or '.join(readers)}.")
    for where, keys in _BELONG.items():
        if key in keys:
            return UserError(f"'{key}' means nothing in {table}; it belongs {where}.")
    return unknown_name("key", key, known)


_BELONG: dict[str, Iterable[str]] = {
    "in [training] or in the table of a tuning": FIT_KEYS,
    "above the first table": TOP_KEYS,
    "in [merging]": ("corruptions", "fine_tunes", "methods"),
    "in [inversion]": INVERSION_KEYS,
    "in [inversion.oti] or [inversion.ovi]": (*SETTING_KEYS, "num_pseudo_tokens"),
}
