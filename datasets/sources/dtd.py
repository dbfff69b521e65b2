"""Describable Textures: 47 textures, 1880 images each for training, validation and testing (Cimpoi et al., CVPR 2014).

Layout; the archive unpacks to ``dtd``, torchvision puts that into another ``dtd``::

    dtd/images/banded/banded_0002.jpg
    dtd/labels/{train,val,test}1.txt      lines banded/banded_0002.jpg; of ten partitions, the first

**The convention ``paper`` is not comparable with published DTD numbers.** The code of the IIMM paper took the validation list
for testing: of ``DTD@paper``, ``test`` is ``val1.txt``, and ``test1.txt`` is never used.
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import labelled, listed_task
from datasets.task import Task, read_lines


def dtd_task(name: str, split: str, data_dir: Path) -> Task:
    """The data set's own split ``train``, ``val`` or ``test``, in the order of its list."""
    return _partition(name, split, data_dir, f"{split}1.txt")


def dtd_paper_task(name: str, split: str, data_dir: Path) -> Task:
    """As the code of the IIMM paper split it: ``train`` is ``train1.txt``, from which validation is drawn; ``test`` is ``val1.txt``."""
    return _partition(name, split, data_dir, "train1.txt" if split == "train" else "val1.txt")


def _partition(name: str, split: str, data_dir: Path, listing: str) -> Task:
    listed = find(name, data_dir, f"dtd/labels/{listing}", f"dtd/dtd/labels/{listing}")
    root = find(name, data_dir, "dtd/images", "dtd/dtd/images").parent
    classes = classnames("dtd")
    images = [(f"images/{line}", line.partition("/")[0]) for line in read_lines(listed)]
    return listed_task(name, split, root, listed, labelled(name, listed, images, classes), classes)
