"""Images that lie in files beside lists of them: what the sources of such data sets share.

Most data sets say in text files which image belongs to which split and class. These functions read the lists, and end in
one sentence that names the file where a list is torn or contradicts itself. No image is opened here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from datasets.image_files import ImageFiles
from datasets.own.imagefolder import EXTENSIONS
from datasets.prompts import default_templates
from datasets.task import Task, read_lines

Listed = tuple[str, int]  # an image's path relative to the data set's folder, and its label


def listed_task(
    name: str, split: str, root: Path, source: Path, images: Iterable[Listed], classnames: Sequence[str], *, first: int = 0
) -> Task:
    """The task of ``images`` below ``root``, in the given order; their labels count from ``first``.

    Sample ids are the paths relative to ``root``. ``source`` is the list, or the folder, that the images were found in: the
    :class:`UserError` names it when it has no image, one image twice, a class without a name, or a label that is no class.
    """
    listed, last = list(images), first + len(classnames) - 1
    paths, labels = [path for path, _ in listed], [label for _, label in listed]
    if not listed:
        raise damaged(name, source, "it holds no image")
    if not all(classname.strip() for classname in classnames):
        raise damaged(name, source, "one of its classes has no name")
    if len(set(paths)) < len(paths):
        raise damaged(name, source, f"it has '{_twice(paths)}' twice")
    for path, label in listed:
        if not first <= label <= last:
            raise damaged(name, source, f"it puts '{path}' in class {label}, but classes count from {first} to {last}")
    return Task(
        name=name,
        split=split,
        samples=ImageFiles.of(root, [os.fsencode(path) for path in paths]),
        labels=np.asarray(labels, dtype=np.int64) - first,
        classnames=tuple(classnames),
        templates=default_templates(name),
    )


def labelled(name: str, source: Path, images: Iterable[tuple[str, str]], classes: Sequence[str]) -> list[Listed]:
    """Pairs (path, class) with each class's position in ``classes`` as the label."""
    positions = {classname: label for label, classname in enumerate(classes)}
    listed = []
    for path, classname in images:
        if classname not in positions:
            raise damaged(name, source, f"'{path}' belongs to no class of {name}")
        listed.append((path, positions[classname]))
    return listed


def rows(name: str, path: Path, columns: int) -> list[list[str]]:
    """The lines of a list file, each cut at blanks into ``columns``; what is left over stays in the last one."""
    cut = [line.split(maxsplit=columns - 1) for line in read_lines(path)]
    for number, row in enumerate(cut, start=1):
        if len(row) != columns:
            raise damaged(name, path, f"entry {number}, '{' '.join(row)}', has {len(row)} of {columns} columns")
    return cut


def whole_number(name: str, path: Path, text: str) -> int:
    """``text`` from the list file ``path`` as a number from 0 up."""
    if not (text.isascii() and text.isdigit()):
        raise damaged(name, path, f"'{text}' stands where a whole number is expected")
    return int(text)


def images_in(root: Path, folder: str) -> list[str]:
    """The image files that lie directly in ``root / folder``, sorted, relative to ``root``; hidden ones do not count."""
    return [f"{folder}/{name}" for name in _entries(root / folder) if name.lower().endswith(EXTENSIONS)]


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted; hidden ones do not count."""
    return [name for name in _entries(folder) if (folder / name).is_dir()]


def damaged(name: str, path: Path, what: str) -> UserError:
    """The error for a file of the data set ``name`` that is there, but torn or in contradiction to itself or another."""
    return UserError(f"'{path}' is damaged: {what}; remove it and get it again with 'python download_datasets.py --datasets {name}'.")


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208 (names are wanted, not paths)
    except OSError as error:
        raise UserError(f"Cannot read the folder '{folder}': {error.strerror}.") from error


def _twice(paths: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(path for path in paths if path in seen or seen.add(path))  # type: ignore[func-returns-value]
