"""Food-101: 101 dishes, with 750 images each for training and 250 for testing (Bossard et al., ECCV 2014).

Layout::

    food-101/images/apple_pie/1005649.jpg
    food-101/meta/{train,test}.txt           lines apple_pie/1005649

The classes are in the order of ``meta/classes.txt``.
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import labelled, listed_task
from datasets.task import Task, read_lines


def food101_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of its list."""
    listed = find(name, data_dir, f"food-101/meta/{split}.txt")
    root = find(name, data_dir, "food-101/images").parent
    classes = classnames("food101")
    images = [(f"images/{line}.jpg", line.partition("/")[0].replace("_", " ")) for line in read_lines(listed)]
    return listed_task(name, split, root, listed, labelled(name, listed, images, classes), classes)
