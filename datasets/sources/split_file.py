"""Split files as CoOp writes them: which images are for training, validation and testing, with labels and class names.

A split file is one JSON object::

    {"train": [["accordion/image_0024.jpg", 1, "accordion"], ...], "val": [...], "test": [...]}

Each entry is a path relative to the data set's folder of images, a label counted from 0, and the name of the class. The
order of the entries is part of the split: few-shot draws of the literature depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.files import read_json
from datasets.sources.listed import Listed, damaged
from datasets.task import SPLITS

Entry = tuple[str, int, str]  # path, label, class name


def read_split_file(name: str, path: Path, classname: Callable[[str, str], str]) -> tuple[dict[str, list[Listed]], list[str]]:
    """The images of each split, and the class names in the order of the labels; no image is looked at.

    ``classname`` makes the name for prompts of an entry's path and class name. A :class:`~common.errors.UserError` names
    the file when an entry is none, a path leads out of the folder or occurs twice, labels are not 0 .. C - 1, or a label has
    no name or two.
    """
    content = read_json(path)
    if not is_split(content):
        raise damaged(name, path, "it is no object with the lists 'train', 'val' and 'test'")
    entries = {split: [_entry(name, path, split, entry) for entry in content[split]] for split in SPLITS}
    everything = [entry for split in SPLITS for entry in entries[split]]
    _check_paths(name, path, everything)
    images = {split: [(place, label) for place, label, _ in entries[split]] for split in SPLITS}
    return images, _classnames(name, path, everything, classname)


def is_split(content: Any) -> bool:
    """Whether ``content``, read from a JSON file, has the three lists of a split file."""
    return isinstance(content, dict) and all(isinstance(content.get(split), list) for split in SPLITS)


def _entry(name: str, path: Path, split: str, entry: Any) -> Entry:
    match entry:
        case [str(place), int(label), str(classname)] if not isinstance(label, bool):
            return place, label, classname
    raise damaged(name, path, f"its {split} entry {entry!r} is not [path, label, class name]")


def _check_paths(name: str, path: Path, entries: Sequence[Entry]) -> None:
    for place, count in Counter(place for place, _, _ in entries).items():
        if not place or "\0" in place or place.startswith("/") or ".." in place.split("/"):
            raise damaged(name, path, f"it lists {place!r}, which is no path below the folder of images")
        if count > 1:
            raise damaged(name, path, f"it lists '{place}' {count} times")


def _classnames(name: str, path: Path, entries: Sequence[Entry], classname: Callable[[str, str], str]) -> list[str]:
    names: dict[int, str] = {}
    for place, label, written in entries:
        found = classname(place, written)
        if not found.strip():
            raise damaged(name, path, f"it gives label {label} no class name")
        if names.setdefault(label, found) != found:
            raise damaged(name, path, f"it gives label {label} two class names, '{names[label]}' and '{found}'")
    for expected, label in enumerate(sorted(names)):
        if label != expected:
            raise damaged(name, path, f"its labels have {label} where {expected} is due, since they count from 0 without a gap")
    return [names[label] for label in sorted(names)]
