"""NWPU-RESISC45: aerial images of 45 scenes, 256 x 256 pixels; 18900 for training, 6300 each for validation and testing.

The images are those of Cheng et al. (2017), the splits those of Neumann et al. (2019), which every paper since uses. Layout::

    resisc45/NWPU-RESISC45/airplane/airplane_001.jpg
    resisc45/resisc45-{train,val,test}.txt             lines airplane_001.jpg, baseball_diamond_017.jpg
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import labelled, listed_task
from datasets.task import Task, read_lines


def resisc45_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test``, in the order of its list; the class is the file's name less its number."""
    listed = find(name, data_dir, f"resisc45/resisc45-{split}.txt")
    root = find(name, data_dir, "resisc45/NWPU-RESISC45").parent
    classes = classnames("resisc45")
    images = []
    for line in read_lines(listed):
        folder = line.rpartition("_")[0]
        images.append((f"NWPU-RESISC45/{folder}/{line}", folder.replace("_", " ")))
    return listed_task(name, split, root, listed, labelled(name, listed, images, classes), classes)
