"""Oxford Flowers: 102 flowers; 1020 images each for training and validation, 6149 for testing (Nilsback, Zisserman, 2008).

Layout, with two MATLAB files::

    oxford_flowers/jpg/image_00001.jpg
    oxford_flowers/imagelabels.mat        labels: the class, from 1 to 102, of each image
    oxford_flowers/setid.mat              trnid, valid, tstid: the numbers, from 1, of each split's images
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import damaged, listed_task
from datasets.sources.mat_files import read_mat
from datasets.task import Task

NUMBERS = {"train": "trnid", "val": "valid", "test": "tstid"}


def flowers102_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test``, in the order of ``setid.mat``."""
    listed, labels_file = (find(name, data_dir, f"oxford_flowers/{file}") for file in ("setid.mat", "imagelabels.mat"))
    root = find(name, data_dir, "oxford_flowers/jpg").parent
    (numbers,), (labels,) = read_mat(name, listed, NUMBERS[split]), read_mat(name, labels_file, "labels")
    if not ((numbers >= 1) & (numbers <= len(labels))).all():
        raise damaged(name, listed, f"it lists images beyond the {len(labels)} that have a label")
    images = [(f"jpg/image_{number:05d}.jpg", int(labels[number - 1])) for number in numbers.tolist()]
    return listed_task(name, split, root, listed, images, classnames("flower102"), first=1)
