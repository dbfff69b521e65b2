"""Open Images as a training source for adapters: a table of image ids with one label each, and a folder of images.

Below the data folder::

    openimages/train.csv     or whatever the only CSV file there is called, e.g. oi_data.csv
    openimages/images/<ImageID>.jpg

The columns of the table, of which any others do not count:

- ``ImageID`` (also ``image_id`` or ``id``): the image's id, 16 hexadecimal digits; an id with an extension is a file name.
- ``DisplayName`` (also ``label`` or ``class``): the name of its class, e.g. ``Human face``. Labels count classes in order
  of first appearance.

That is the layout of the intra-modal overlap paper's code (Kravets and Namboodiri, BMVC 2024), whose table has some 200
images of each class and a third column ``type``: Open Images' own partition, which does not count either, because here all
images are for training. An image may be listed under several classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import read_csv
from datasets.image_files import ImageFiles
from datasets.own.imagefolder import EXTENSIONS
from datasets.places import find, missing
from datasets.task import Task

FOLDER = "openimages"
IDS = ("ImageID", "image_id", "id")
LABELS = ("DisplayName", "label", "class")
TEMPLATES = ("a photo of a {c}.",)  # no prompts were published: adapters are trained with a linear layer


def open_images_task(name: str, split: str, data_dir: Path) -> Task:
    """All images of the table, in its order. There is a training split only; no image file is opened."""
    if split != "train":
        raise UserError(f"{name} is for training adapters and has no {split} split; test on another data set.")
    images = find(name, data_dir, f"{FOLDER}/images")
    return listed_images(name, _table(name, data_dir), images)


def listed_images(name: str, table: Path, images: Path) -> Task:
    """The images of a table as above in a folder, as a training split; a :class:`UserError` when the table is not such a one."""
    ids, labels = _columns(table)
    classes = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return Task(
        name=name,
        split="train",
        samples=ImageFiles.of(images, [_file(image_id) for image_id in ids]),
        labels=np.array([classes[label] for label in labels], dtype=np.int64),
        classnames=tuple(classes),
        templates=TEMPLATES,
    )


def _table(name: str, data_dir: Path) -> Path:
    folder = data_dir.expanduser() / FOLDER
    tables = sorted(folder.glob("*.csv"))
    if (folder / "train.csv") in tables:
        return folder / "train.csv"
    if not tables:
        raise missing(name, data_dir, f"{FOLDER}/train.csv")
    if len(tables) > 1:
        raise UserError(f"'{folder}' has several tables, '{tables[0].name}' and '{tables[1].name}'; name the one to use train.csv.")
    return tables[0]


def _columns(table: Path) -> tuple[list[str], list[str]]:
    """The ids and the class names of all rows."""
    if not table.is_file():
        raise UserError(f"There is no table '{table}'; expected a CSV file with the columns {IDS[0]} and {LABELS[0]}.")
    rows = read_csv(table)
    if not rows:
        raise UserError(f"'{table}' lists no image; expected a header line with {IDS[0]} and {LABELS[0]}, and a row per image.")
    columns = [_column(table, list(rows[0]), names) for names in (IDS, LABELS)]
    ids, labels = ([row[column].strip() for row in rows] for column in columns)
    for number, pair in enumerate(zip(ids, labels, strict=True), start=1):
        if not all(pair):
            raise UserError(f"Row {number} of '{table}' has no {columns[0] if not pair[0] else columns[1]}.")
    if len(set(labels)) < 2:
        raise UserError(f"'{table}' has only one class, '{labels[0]}'; at least two are needed.")
    return ids, labels


def _column(table: Path, header: Sequence[str], names: Sequence[str]) -> str:
    """The column of one of ``names``, the first of which is the published one; capital letters do not matter."""
    spelt = {column.strip().lower(): column for column in header}
    for name in names:
        if name.lower() in spelt:
            return spelt[name.lower()]
    raise UserError(f"'{table}' has no column {names[0]} (its columns: {', '.join(header)}).")


def _file(image_id: str) -> bytes:
    return (image_id if image_id.lower().endswith(EXTENSIONS) else f"{image_id}.jpg").encode()
