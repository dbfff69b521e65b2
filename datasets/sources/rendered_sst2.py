"""Rendered SST2: sentences of film reviews as images, negative or positive (Radford et al., 2021).

6920 images for training, 872 for validation, 1821 for testing. Layout::

    rendered-sst2/{train,valid,test}/{negative,positive}/*.png
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import images_in, listed_task
from datasets.task import Task

FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def rendered_sst2_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test``: the negative reviews, then the positive ones, sorted by file name."""
    root, classes = find(name, data_dir, "rendered-sst2"), classnames("rendered_sst2")
    folders = [find(name, data_dir, f"rendered-sst2/{FOLDERS[split]}/{classname}") for classname in classes]
    images = [(path, label) for label, folder in enumerate(folders) for path in images_in(root, folder.relative_to(root).as_posix())]
    return listed_task(name, split, root, folders[0].parent, images, classes)
