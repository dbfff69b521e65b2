"""Data sets on the Hugging Face hub: ``hub:ORG/NAME``, or ``hub:ORG/NAME/CONFIG`` where there are several configurations.

Any set of images with one label each, in parquet files (or WebDataset shards); :mod:`datasets.hub_repository` tells how it is
found and at which revision. The image column is that of type Image, or of encoded images; the label column is ``label``,
``labels``, ``fine_label`` or ``cls``, else the only one of type ClassLabel. Class names are those of the ClassLabel, or the
lines of ``classnames.txt``; else the classes are those of the training split, as in a table (:mod:`datasets.own.labels`).
The validation split may be called ``val``, ``valid``, ``validation`` or ``dev``; without one it is drawn from ``train``.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import UserError
from datasets.hub_images import read_split
from datasets.hub_repository import HubRepository, open_repository
from datasets.own.division import known_split
from datasets.own.imagefolder import DEFAULT_TEMPLATES
from datasets.own.labels import as_numbers, classes_of
from datasets.task import Task, read_template_file, split_validation

_WHERE = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>.+))?")


def hub_source(where: str, split: str, val_p: float, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.OwnSource`."""
    found = _WHERE.fullmatch(where)
    if found is None:
        raise UserError(f"'hub:{where}' does not name a data set on the hub; write hub:ORG/NAME or hub:ORG/NAME/CONFIG.")
    repository, config = open_repository(found["name"], data_dir), found["config"]
    stored = _stored_splits(repository, config)
    if split == "test" or "val" in stored:
        return _task(repository, config, split, stored, data_dir)
    train, val = split_validation(_task(repository, config, "train", stored, data_dir), val_p)
    return val if split == "val" else train


def _stored_splits(repository: HubRepository, config: str | None) -> dict[str, str]:
    """What the set calls its splits, e.g. ``{"train": "train", "val": "validation"}``."""
    named = ((known_split(name), name) for name in repository.splits(config))
    return {split: name for split, name in named if split is not None}


def _task(repository: HubRepository, config: str | None, split: str, stored: dict[str, str], data_dir: Path) -> Task:
    what = f"The {split} split of '{repository.name}' on the hub"
    images = read_split(repository, stored.get(split, split), config, data_dir)
    if (classnames := images.names) is not None:
        labels = images.numbers(len(classnames), what)
    else:
        train = read_split(repository, stored.get("train", "train"), config, data_dir) if split != "train" else images
        classnames = classes_of(what, train.labels)
        labels = as_numbers(what, images.labels, classnames)
    listed = repository.note("zeroshot_classification_templates.txt")
    templates = read_template_file(listed) if listed else DEFAULT_TEMPLATES
    return Task(f"hub:{repository.name}" + (f"/{config}" if config else ""), split, images.samples, labels, classnames, templates)
