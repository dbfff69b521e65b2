"""Labelled images of a split of a data set on the hub, in parquet files or in WebDataset shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.hub_repository import HubRepository
from datasets.parquet_images import ParquetImages
from datasets.parquet_table import class_names, image_column, label_column, open_parquet, read_texts
from datasets.samples import Samples
from datasets.tar_images import read_shards
from datasets.task import read_lines


@dataclass(frozen=True)
class LabelledImages:
    """Images with the texts of their labels, and the names of the classes where labels are their numbers."""

    samples: Samples
    labels: NDArray[np.object_]
    names: tuple[str, ...] | None = None

    def numbers(self, classes: int, what: str) -> NDArray[np.int64]:
        """The labels as numbers of ``classes`` classes; truth values count as 0 and 1."""
        texts, places = np.unique(self.labels.astype(str), return_inverse=True)
        for text in texts.tolist():
            if not (text.isascii() and text.isdigit() and int(text) < classes):
                raise UserError(f"{what} has the label '{text}'; expected numbers from 0 to {classes - 1}.")
        return np.array([int(text) for text in texts], dtype=np.int64)[places]


def read_split(repository: HubRepository, split: str, config: str | None, data_dir: Path) -> LabelledImages:
    """The images and labels of a split, downloaded when they are not there."""
    names = repository.split_files(split, config)
    files = [repository.fetch(name) for name in names]
    if all(name.endswith(".parquet") for name in names):
        return _read_parquet(repository.name, files, data_dir)
    samples, labels = read_shards(files, [name.removesuffix(".tar") for name in names], data_dir)
    listed = repository.note("classnames.txt")
    return LabelledImages(samples, labels, tuple(read_lines(listed)) if listed else None)


def _read_parquet(name: str, files: Sequence[Path], data_dir: Path) -> LabelledImages:
    schema = open_parquet(files[0]).schema_arrow
    image, label = image_column(schema), label_column(schema)
    if image is None or label is None:
        wanted = "column of encoded images" if image is None else "column of labels (label, labels, fine_label, cls or a ClassLabel)"
        raise UserError(f"'{name}' on the hub has no {wanted}, or more than one; its columns are: {', '.join(schema.names)}.")
    return LabelledImages(ParquetImages.of(files, image, data_dir), read_texts(files, label), class_names(schema, label))
