"""PlantDoc: leaves of 13 plants, healthy or with one of 17 diseases, as photographed in the field (Singh et al., 2020).

Layout, that of the published repository::

    plantdoc/{train,test}/<class>/*

The folders of ``train`` are the classes; ``test`` need not have them all.
"""

from __future__ import annotations

from pathlib import Path

from datasets.places import find
from datasets.sources.listed import folders_in, images_in, labelled, listed_task
from datasets.task import Task


def plantdoc_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, class by class, sorted by file name; a folder's name is its class's."""
    training, folder = (find(name, data_dir, f"plantdoc/{part}") for part in ("train", split))
    classes = folders_in(training)
    images = [(path, leaf) for leaf in folders_in(folder) for path in images_in(folder.parent, f"{split}/{leaf}")]
    names = [leaf.replace("_", " ") for leaf in classes]
    return listed_task(name, split, folder.parent, folder, labelled(name, folder, images, classes), names)
