"""SUN397: 397 scenes, with 50 images each for training and for testing: 19850 both times (Xiao et al., CVPR 2010).

Layout, of the ten published partitions the first::

    sun397/SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg
    sun397/{Training,Testing}_01.txt                lines /a/abbey/sun_aaalbzqrimafwbiv.jpg

The folder is the class, read as words: ``/a/apartment_building/outdoor`` is "apartment building outdoor". Labels follow the
merging benchmarks, which sort these words; ``ClassName.txt`` sorts the paths, which differs by a few places.
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import labelled, listed_task
from datasets.task import Task, read_lines

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def sun397_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of its list."""
    listed = find(name, data_dir, f"sun397/{LISTS[split]}")
    root = find(name, data_dir, "sun397/SUN397").parent
    classes = classnames("sun397")
    images = [(f"SUN397{line}", scene(line.rpartition("/")[0])) for line in read_lines(listed)]
    return listed_task(name, split, root, listed, labelled(name, listed, images, classes), classes)


def scene(folder: str) -> str:
    """The class of a folder as words, without the letter that begins its path."""
    return " ".join(folder.split("/")[2:]).replace("_", " ")
