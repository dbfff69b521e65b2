"""EuroSAT: 27000 satellite images of 10 kinds of land, RGB, 64 x 64 pixels (Helber et al., 2019). It has no splits of its own.

Layouts; where both are there, the first is used::

    EuroSAT_splits/{train,val,test}/<class>/*.jpg    as the published script divided them, also below eurosat/
    eurosat/2750/<class>/*.jpg                       as the archive unpacks

The script behind the IIMM and task-vector papers draws 270 images of each class for validation and 270 for testing, without
a seed: nobody can repeat that draw, and accuracies differ by a point or two between draws. So folders made by it are used
as they are; without them, as many images are drawn here in a way that is the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import damaged, images_in, listed_task
from datasets.task import Task

DIVIDED, UNDIVIDED = ("EuroSAT_splits", "eurosat/EuroSAT_splits"), "eurosat/2750"
# One for each class name of the facts, in their order.
FOLDERS = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial",
    "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip
HELD_OUT = 270  # images of each class, once for validation and once more for testing
SPLIT_SEED = 0


def eurosat_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` (21600 images), ``val`` or ``test`` (2700 each), class by class, sorted by file name."""
    divided = next((folder for folder in DIVIDED if (data_dir.expanduser() / folder).is_dir()), None)
    source = f"{divided}/{split}" if divided else UNDIVIDED
    folders = [find(name, data_dir, f"{source}/{folder}") for folder in FOLDERS]
    root = folders[0].parents[1]
    by_class = [images_in(root, folder.relative_to(root).as_posix()) for folder in folders]
    if not divided:
        by_class = [_drawn(name, folder, paths, split) for folder, paths in zip(folders, by_class, strict=True)]
    images = [(path, label) for label, paths in enumerate(by_class) for path in paths]
    return listed_task(name, split, root, folders[0].parent, images, classnames("eurosat"))


def _drawn(name: str, folder: Path, paths: list[str], split: str) -> list[str]:
    """One split of one class: images are ranked by a hash of the seed and their path, so that one more moves few others."""
    if len(paths) <= 2 * HELD_OUT:
        raise damaged(name, folder, f"it holds {len(paths)} images, too few to take {2 * HELD_OUT} away")
    ranked = sorted(paths, key=lambda path: hashlib.sha256(b"%d:%s" % (SPLIT_SEED, os.fsencode(path))).digest())
    bounds = {"test": (0, HELD_OUT), "val": (HELD_OUT, 2 * HELD_OUT), "train": (2 * HELD_OUT, len(paths))}
    return sorted(ranked[slice(*bounds[split])])
