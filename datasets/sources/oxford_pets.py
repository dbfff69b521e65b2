"""Oxford-IIIT Pets: 37 breeds of cats and dogs; 3680 images for training, 3669 for testing (Parkhi et al., CVPR 2012).

Layout::

    oxford_pets/images/Abyssinian_100.jpg
    oxford_pets/annotations/{trainval,test}.txt    lines Abyssinian_100 1 1 1: image, class from 1 to 37, species, breed
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import listed_task, rows, whole_number
from datasets.task import Task

LISTS = {"train": "trainval.txt", "test": "test.txt"}


def oxford_pets_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of its list."""
    listed = find(name, data_dir, f"oxford_pets/annotations/{LISTS[split]}")
    root = find(name, data_dir, "oxford_pets/images").parent
    images = [(f"images/{image}.jpg", whole_number(name, listed, label)) for image, label, _, _ in rows(name, listed, 4)]
    return listed_task(name, split, root, listed, images, classnames("oxford_iiit_pet"), first=1)
