"""STL10: colour images of 96 x 96 pixels in ten classes (Coates, Lee and Ng, "An analysis of single-layer networks", 2011).

Layout::

    stl10_binary/{train,test}_X.bin     27648 bytes an image: all red pixels column by column, then green, then blue
    stl10_binary/{train,test}_y.bin     a byte an image, from 1 to 10
    stl10_binary/class_names.txt        the class names, which are also those here

Of the training images, all 5000 are used, not the ten folds; the unlabelled ones are not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.arrays import raw_task, read_records
from datasets.task import Task

SIDE = 96


def stl10_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``; see :class:`~datasets.registry.Source`."""
    images, labels = (find(name, data_dir, f"stl10_binary/{split}_{part}.bin") for part in "Xy")
    columns = read_records(images, 3 * SIDE * SIDE).reshape(-1, 3, SIDE, SIDE)  # [N, channel, column, row]
    pixels = np.ascontiguousarray(columns.transpose(0, 3, 2, 1))
    return raw_task(name, split, pixels, read_records(labels, 1)[:, 0], classnames("stl10"), labels, first=1)
