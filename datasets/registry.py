"""Data sets by name.

To add a data set, write one small file ``datasets/<source>.py`` with a function that returns a
:class:`~datasets.task.Task` for a split, and add one line to the table in :func:`sources`::

    "CIFAR10": Source(lambda split, data_dir: _from("cifar").cifar_task("CIFAR10", split, data_dir)),

A source gives its ``train`` and ``test`` splits; its ``val`` split is drawn from ``train``, unless it says that it has
one of its own (``own_validation=True``). A source raises a :class:`~common.errors.UserError` when its files are not in
``data_dir``. Nothing is imported before a data set is asked for, so that ``--help`` stays fast.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError, unknown_name
from common.files import slug

if TYPE_CHECKING:
    from datasets.task import Task

IMAGEFOLDER = "imagefolder:"


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: ``load(split, data_dir)`` is one split of it."""

    load: Callable[[str, Path], Task]
    own_validation: bool = False  # whether load knows the split "val"


def _from(module: str) -> Any:
    return import_module(f"datasets.{module}")


def _drawn(name: str) -> Source:
    return Source(lambda split, data_dir: _from("drawn").drawn_task(name, split))


@cache
def sources() -> dict[str, Source]:
    """The table of all data sets that have a fixed name."""
    return {
        "Digits": Source(lambda split, data_dir: _from("digits").digits_task(split)),
        **{name: _drawn(name) for name in _from("drawn").DRAWN_TASKS},
    }


def task_names() -> list[str]:
    """All fixed names. Besides these, ``imagefolder:PATH`` is a name for every folder of images."""
    return list(sources())


def load_task(
    name: str,
    split: str,
    *,
    data_dir: Path = Path("./data"),
    val_p: float = 0.1,
    templates: Sequence[str] | None = None,
) -> Task:
    """The split ``train``, ``val`` or ``test`` of the data set ``name``, a fixed one or ``imagefolder:PATH``.

    ``val_p`` is the proportion of the training images that is drawn for validation where the data set has no validation
    split of its own; ``templates`` take the place of the data set's own. Unknown names, missing files and bad templates
    are a :class:`UserError`. Example::

        load_task("imagefolder:photos/birds", "test", templates=["a photo of a {c}, a type of bird."])
    """
    from datasets.task import SPLITS, as_templates

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    folder = _imagefolder_path(name)
    if folder is not None:
        task = _from("imagefolder").imagefolder_task(folder, split, val_p)
    elif name in sources():
        task = _load_fixed(sources()[name], split, data_dir, val_p)
    else:
        raise _unknown_task(name)
    return replace(task, templates=as_templates(templates)) if templates is not None else task


def _load_fixed(source: Source, split: str, data_dir: Path, val_p: float) -> Task:
    from datasets.task import split_validation

    if split == "test" or source.own_validation:
        return source.load(split, data_dir)
    train, val = split_validation(source.load("train", data_dir), val_p)
    return val if split == "val" else train


def _imagefolder_path(name: str) -> Path | None:
    if not name.startswith(IMAGEFOLDER):
        return None
    if not name.removeprefix(IMAGEFOLDER).strip():
        raise UserError(f"'{name}' has no folder; write 'imagefolder:PATH'.")
    return Path(name.removeprefix(IMAGEFOLDER))


def _unknown_task(name: str) -> UserError:
    if name.lower().startswith(IMAGEFOLDER):
        return UserError(f"Unknown data set '{name}'; did you mean '{IMAGEFOLDER}{name[len(IMAGEFOLDER) :]}'?")
    if name and Path(name).expanduser().is_dir():
        return UserError(f"Unknown data set '{name}'; for a folder of images write '{IMAGEFOLDER}{name}'.")
    unknown = str(unknown_name("data set", name, task_names()))
    return UserError(f"{unknown[:-1]} (own images: {IMAGEFOLDER}PATH){unknown[-1]}")


def task_slug(name: str) -> str:
    """The data set's name as part of a file name; fixed names stay as they are.

    ``imagefolder:/a/b/cats`` becomes ``cats-`` and six hexadecimal digits of the absolute path's SHA-256, so two folders
    of one name have two slugs, and one folder has one, however its path is written.
    """
    if (folder := _imagefolder_path(name)) is None:
        return slug(name)
    absolute = os.path.normpath(folder.expanduser().absolute())
    return f"{slug(Path(absolute).name)}-{hashlib.sha256(os.fsencode(absolute)).hexdigest()[:6]}"


def read_templates(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """The templates of a repeatable ``--template``: each value is a template, or a ``.txt`` file with one per line.

    None, for the data set's own templates, when the option was not given.
    """
    from datasets.task import as_templates, read_template_file

    if not values:
        return None
    parts = (read_template_file(Path(value).expanduser()) if _is_file(value) else [value] for value in values)
    return as_templates([template for part in parts for template in part])


def _is_file(value: str) -> bool:
    return value.endswith(".txt") and "{c}" not in value and "{}" not in value
