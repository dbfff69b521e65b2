"""Stanford Dogs: 120 breeds; 12000 images for training, 8580 for testing (Khosla et al., 2011).

Layout, with the lists as MATLAB files, also in ``stanford_dogs/lists``::

    stanford_dogs/Images/n02085620-Chihuahua/n02085620_5927.jpg
    stanford_dogs/{train,test}_list.mat    file_list: paths below Images; labels: classes from 1 to 120

A breed is the folder's name after its first hyphen: ``n02088364-flat-coated_retriever`` is a "flat-coated retriever".
"""

from __future__ import annotations

from pathlib import Path

from datasets.places import find
from datasets.sources.listed import Listed, damaged, listed_task
from datasets.sources.mat_files import read_mat
from datasets.task import Task


def stanford_dogs_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of its list; class names are those of the training list's folders."""
    training, listed = (
        find(name, data_dir, f"stanford_dogs/{part}_list.mat", f"stanford_dogs/lists/{part}_list.mat") for part in ("train", split)
    )
    root = find(name, data_dir, "stanford_dogs/Images").parent
    breeds = _breeds(name, training, _images(name, training))
    return listed_task(name, split, root, listed, _images(name, listed), breeds, first=1)


def breed(folder: str) -> str:
    """``African hunting dog`` of ``n02116738-African_hunting_dog``."""
    return folder.partition("-")[2].replace("_", " ")


def _images(name: str, listed: Path) -> list[Listed]:
    files, labels = read_mat(name, listed, "file_list", "labels")
    if len(files) != len(labels):
        raise damaged(name, listed, f"it has {len(files)} files but {len(labels)} labels")
    return [(f"Images/{file}", int(label)) for file, label in zip(files, labels, strict=True)]


def _breeds(name: str, listed: Path, images: list[Listed]) -> list[str]:
    """The class names, in the order of the labels: each class is one folder."""
    folders = sorted({(label, path.split("/")[1]) for path, label in images})
    if [label for label, _ in folders] != list(range(1, len(folders) + 1)):
        raise damaged(name, listed, "its labels do not number its folders from 1 up")
    return [breed(folder) for _, folder in folders]
