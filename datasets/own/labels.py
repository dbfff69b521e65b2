"""Classes from the labels that tables and shards have as text.

- Labels that are whole numbers (``0``, ``12``; not ``007``) are in the order of the numbers, all others sorted by code point.
- Their names are those of a column of class names, where there is one: every label has one name, and no two share one.
- Else they are those of ``classnames.txt`` beside the data: for numbers the name of class i is in line i, counted from 0; or
  the lines are ``label<TAB>class name`` or ``label: class name`` (:func:`~datasets.own.classnames.read_classnames`).
- Else the labels are the names, exactly as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError
from datasets.own.classnames import read_classnames
from datasets.task import read_lines

Texts = NDArray[np.object_]

_NUMBER = re.compile(r"0|[1-9][0-9]*")


def classes_of(what: str, texts: Texts) -> tuple[str, ...]:
    """The distinct labels in their order; at least two."""
    found = [str(text) for text in pd.unique(texts)]
    if len(found) < 2:
        raise UserError(f"{what} has only one class, '{''.join(found)}'; at least two classes are needed.")
    return tuple(sorted(found, key=int) if _are_numbers(found) else sorted(found))


def as_numbers(what: str, texts: Texts, classes: Sequence[str]) -> NDArray[np.int64]:
    """The place of each label in ``classes``."""
    codes, found = pd.factorize(texts)
    places = {text: place for place, text in enumerate(classes)}
    if extra := [str(text) for text in found if text not in places]:
        raise UserError(f"{what} has the label '{extra[0]}', which the training images do not have; take it out, or add some to train on.")
    return np.array([places[text] for text in found], dtype=np.int64)[codes]


def named_classes(what: str, texts: Texts, names: Texts | None, listed: Path | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(labels int64, class names) by the rules above; ``names`` is the column of class names, ``listed`` a ``classnames.txt``."""
    classes = classes_of(what, texts)
    labels = as_numbers(what, texts, classes)
    if names is not None:
        classnames = _names_of(what, classes, labels, names)
    elif listed is not None and listed.exists():
        if (lines := _numbered_lines(listed, classes)) is not None:
            return np.array([int(text) for text in classes], dtype=np.int64)[labels], _distinct(f"'{listed}'", lines)
        classnames = read_classnames(listed, classes)
    else:
        classnames = classes
    return labels, _distinct(what, classnames)


def _are_numbers(texts: Sequence[str]) -> bool:
    return all(_NUMBER.fullmatch(text) for text in texts)


def _names_of(what: str, classes: Sequence[str], labels: NDArray[np.int64], names: Texts) -> tuple[str, ...]:
    codes, found = pd.factorize(names)
    pairs = np.unique(np.stack([labels, codes], axis=1), axis=0)
    if len(pairs) > len(classes):
        label = int(pairs[1:, 0][np.diff(pairs[:, 0]) == 0][0])
        several = "' and '".join(str(found[code]) for code in pairs[pairs[:, 0] == label, 1][:2])
        raise UserError(f"{what} has two class names for the label '{classes[label]}': '{several}'.")
    return tuple(str(found[code]) for code in pairs[:, 1])


def _numbered_lines(listed: Path, classes: Sequence[str]) -> tuple[str, ...] | None:
    """The lines of a plain list in which each number finds its class; None where that is not what it is."""
    lines = read_lines(listed)
    plain = not all(re.match(r"[0-9]+\s*[\t:]", line) for line in lines)
    return tuple(lines) if plain and _are_numbers(classes) and int(classes[-1]) < len(lines) else None


def _distinct(what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise UserError(f"{what} has two classes named '{twice}'; give each its own name.")
    return names
