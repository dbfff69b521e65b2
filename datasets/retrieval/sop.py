"""``SOP``: Stanford Online Products, photographs of articles offered for sale, as leave-one-out retrieval.

Layout, as released::

    Stanford_Online_Products/{Ebay_train,Ebay_test}.txt
        image_id class_id super_class_id path
        1 1 1 bicycle_final/111085122871_0.JPG
    Stanford_Online_Products/bicycle_final/*.JPG, cabinet_final/ ...

A class is one article, without a name; labels are ``class_id - 1``. Articles are of twelve kinds, the super-classes, here the
groups. Splits: ``test`` (60,502 images of 11,316 articles, the published one), ``train`` (59,551 of 11,318) and ``all``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.image_files import ImageFiles
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask, by_label
from datasets.sources.listed import damaged, rows, whole_number
from datasets.task import Groups

FOLDER = "Stanford_Online_Products"
HEADER = ["image_id", "class_id", "super_class_id", "path"]
SUPER_CLASSES = (
    "bicycle", "cabinet", "chair", "coffee maker", "fan", "kettle", "lamp", "mug", "sofa", "stapler", "table", "toaster",
)  # fmt: skip


class Photograph(NamedTuple):
    """A row of a list."""

    image: int
    article: int
    kind: int
    path: str


def sop_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`. The order is that of the files."""
    parts = ("train", "test") if split == "all" else (split,)
    listed = [each for part in parts for each in _read(name, find(name, data_dir, f"{FOLDER}/Ebay_{part}.txt"))]
    labels = np.array([each.article - 1 for each in listed], dtype=np.int64)
    groups = Groups("super-class", SUPER_CLASSES, np.array([each.kind - 1 for each in listed], dtype=np.int64))
    samples = ImageFiles.of(find(name, data_dir, FOLDER), [each.path.encode() for each in listed])
    images = Collection(samples, labels, groups=groups)
    return by_label(name, split, images, images)


def _read(name: str, path: Path) -> list[Photograph]:
    header, *listed = rows(name, path, len(HEADER)) or [[]]
    if header != HEADER:
        raise damaged(name, path, f"it does not begin with '{' '.join(HEADER)}'")
    photographs = [_photograph(name, path, row) for row in listed]
    for place, each in enumerate(photographs):
        if each.image != photographs[0].image + place:
            raise damaged(name, path, f"image {each.image} stands where image {photographs[0].image + place} is expected")
        if each.article < 1 or not 1 <= each.kind <= len(SUPER_CLASSES):
            raise damaged(name, path, f"image {each.image} is of class {each.article} and super-class {each.kind}")
    return photographs


def _photograph(name: str, path: Path, row: list[str]) -> Photograph:
    image, article, kind = (whole_number(name, path, number) for number in row[:3])
    return Photograph(image, article, kind, row[3])
