"""Class names from a text file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from datasets.task import read_lines


def read_classnames(path: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """One class name per folder from ``classnames.txt``.

    The safe form names the folder: ``folder<TAB>class name`` or ``folder: class name`` on each line, in any order; lines
    of folders that are not there do not count, so one file serves parts of a data set. The short form has only the class
    names, one line per folder in sorted order.
    """
    lines = read_lines(path)
    pairs = [_pair(line) for line in lines]
    if all(name for _, name in pairs) or any(name and folder in folders for folder, name in pairs):
        return _mapped_classnames(path, pairs, folders)
    if len(lines) != len(folders):
        raise UserError(f"'{path}' has {len(lines)} class names for {len(folders)} class folders; expected one line per folder.")
    return tuple(lines)


def _pair(line: str) -> tuple[str, str]:
    """(folder, class name) of a line; the class name is empty when the line has only one part."""
    folder, _, name = line.partition("\t" if "\t" in line else ":")
    return folder.strip(), name.strip()


def _mapped_classnames(path: Path, pairs: Sequence[tuple[str, str]], folders: Sequence[str]) -> tuple[str, ...]:
    names = dict(pairs)
    if bad := [folder for folder, name in pairs if not name]:
        raise UserError(f"'{path}' has the line '{bad[0]}' without a class name; expected 'folder: class name' on every line.")
    if len(names) < len(pairs):
        raise UserError(f"'{path}' names a class folder twice; expected one line per folder.")
    if missing := [folder for folder in folders if folder not in names]:
        raise UserError(f"'{path}' has no line for the class folder '{missing[0]}'.")
    return tuple(names[folder] for folder in folders)
