"""CUB-200-2011: 200 birds; 5994 images for training, 5794 for testing (Wah et al., 2011).

Layout; the lists number images and classes from 1::

    CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    CUB_200_2011/images.txt                 lines 1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    CUB_200_2011/image_class_labels.txt     lines 1 1: image, class
    CUB_200_2011/train_test_split.txt       lines 1 0: image, whether it is for training
    CUB_200_2011/classes.txt                lines 1 001.Black_footed_Albatross
"""

from __future__ import annotations

from pathlib import Path

from datasets.places import find
from datasets.sources.listed import damaged, listed_task, rows
from datasets.task import Task

TRAINING = {"train": ("1",), "test": ("0",), "all": ("1", "0")}


def cub_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, or ``all``, in the order of ``images.txt``; class names come without numbers and underscores."""
    root = find(name, data_dir, "CUB_200_2011/images").parent
    paths, classes, training, names = (
        _by_number(name, find(name, data_dir, f"CUB_200_2011/{file}.txt"))
        for file in ("images", "image_class_labels", "train_test_split", "classes")
    )
    _check(name, root, paths, classes, training, names)
    labels = {number: label for label, number in enumerate(names)}
    images = [(f"images/{path}", labels[classes[n]]) for n, path in paths.items() if training[n] in TRAINING[split]]
    return listed_task(name, split, root, root / "train_test_split.txt", images, [bird(folder) for folder in names.values()])


def bird(folder: str) -> str:
    """``Black footed Albatross`` of ``001.Black_footed_Albatross``."""
    return folder.partition(".")[2].replace("_", " ")


def _by_number(name: str, path: Path) -> dict[str, str]:
    listed = rows(name, path, 2)
    numbered = {row[0]: row[1] for row in listed}
    if len(numbered) < len(listed):
        raise damaged(name, path, "it has a number twice")
    return numbered


def _check(name: str, root: Path, paths: dict[str, str], classes: dict[str, str], training: dict[str, str], names: dict[str, str]) -> None:
    """The lists speak of the same images and classes."""
    for file, listed in (("image_class_labels", classes), ("train_test_split", training)):
        if listed.keys() != paths.keys():
            raise damaged(name, root / f"{file}.txt", f"it does not list the {len(paths)} images of images.txt")
    if unknown := set(classes.values()) - names.keys():
        raise damaged(name, root / "image_class_labels.txt", f"classes.txt has no class {min(unknown)}")
    if unknown := set(training.values()) - set(TRAINING["all"]):
        raise damaged(name, root / "train_test_split.txt", f"'{min(unknown)}' stands where 0 or 1 is expected")
