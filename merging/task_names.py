"""The names of the merging benchmarks' tasks, and which of our data sets they mean.

Published names stand for the data sets on the hub that the released checkpoints were trained on: ``stanford-cars`` is ``Cars@hub``.
They are what reports call the tasks, so that these read like the released ones. Groups of them have names too: ``TA8`` are the eight
of task arithmetic, ``TALL14`` and ``TALL20`` the fourteen and twenty of TALL masks, each a beginning of the same list.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import nearest, unknown_name
from datasets.arguments import asked_name, asked_templates
from datasets.prompts import chosen_templates, prompt_names
from datasets.registry import SOURCES, checked_name, load_task

if TYPE_CHECKING:
    from datasets.task import Task

PUBLISHED = {
    "sun397": "SUN397",
    "stanford-cars": "Cars",
    "resisc45": "RESISC45",
    "eurosat": "EuroSAT",
    "svhn": "SVHN",
    "gtsrb": "GTSRB",
    "mnist": "MNIST",
    "dtd": "DTD",
    "oxford_flowers102": "Flowers102",
    "pcam": "PCAM",
    "fer2013": "FER2013",
    "oxford-iiit-pet": "OxfordPets",
    "stl10": "STL10",
    "cifar100": "CIFAR100",
    "cifar10": "CIFAR10",
    "food101": "Food101",
    "fashion_mnist": "FashionMNIST",
    "emnist_letters": "EMNISTLetters",
    "kmnist": "KMNIST",
    "rendered-sst2": "RenderedSST2",
}  # in the published order
GROUPS = {f"{kind}{size}": tuple(PUBLISHED)[:size] for kind, size in [("TA", 8), *(("TALL", size) for size in (10, 12, 14, 16, 18, 20))]}
PROMPTS = "merging"


def expand(words: Iterable[str]) -> dict[str, str]:
    """{name in reports: name of the data set} for names as they are typed, in their order, each once.

    A word is a group, a published name in any mixture of ``-`` and ``_``, or one of our own names, all with the suffixes of
    :mod:`datasets.naming`: ``stanford-cars+contrast-3``, ``TA8``, ``gtsrb@hub-spatter``, ``Shapes-Kind``, ``imagefolder:photos``.
    Raises :class:`~common.errors.UserError` for a name that nothing has.
    """
    return {key: name for word in words for key, name in _expand(word)}


def _expand(word: str) -> list[tuple[str, str]]:
    head, suffix = ("", "") if ":" in word else _split(word)
    if head in GROUPS:
        return [_published(name, suffix) for name in GROUPS[head]]
    spelling = {name.replace("_", "-"): name for name in PUBLISHED}.get(head.replace("_", "-"))
    if spelling is not None:
        return [_published(spelling, suffix)]
    known = [*GROUPS, *PUBLISHED, *SOURCES]
    if head and head not in known and nearest(head, known) and not Path(head).expanduser().is_dir():
        raise unknown_name("task", head, known)
    return [(word, str(checked_name(word)))]


def _split(word: str) -> tuple[str, str]:
    found = re.match(r"[^@+]*", word)
    assert found is not None
    return found[0], word[found.end() :]


def _published(name: str, suffix: str) -> tuple[str, str]:
    data_set = PUBLISHED[name] + (suffix if suffix.startswith("@") else f"@hub{suffix}")
    return name + suffix, str(checked_name(data_set))


def asked_names(args: argparse.Namespace, words: Iterable[str]) -> dict[str, str]:
    """As :func:`expand`, with the corruption that the flags ask for in both names."""
    return {asked_name(args, key): asked_name(args, name) for key, name in expand(words).items()}


def load_tasks(args: argparse.Namespace, words: Iterable[str], split: str) -> dict[str, Task]:
    """The tasks by what reports call them. Prompts are those of the flags, else the merging benchmarks', else the data set's own."""
    return {key: _load(args, name, split) for key, name in asked_names(args, words).items()}


def _load(args: argparse.Namespace, name: str, split: str) -> Task:
    base = checked_name(name).base
    templates = asked_templates(args, name)
    if templates is None and PROMPTS in prompt_names(base):
        templates = chosen_templates(base, PROMPTS)
    return load_task(name, split, data_dir=args.data_dir, val_p=args.val_p, templates=templates)
