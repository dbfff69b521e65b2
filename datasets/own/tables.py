"""Own images listed in a table: ``csv:FILE`` with a header line, UTF-8, or ``parquet:FILE``.

Columns (capitals do not matter)::

    path          the image file, relative to the table's folder or absolute; also image, filepath, filename or file.
                  A parquet file may have the encoded images themselves instead (binary, or struct<bytes, path>)
    label         number or name of the class; or only
    classname     the class's name; also class or class_name. With both, every label has one name (see datasets.own.labels)
    split         optional: train, val (valid, validation, dev) or test; without it, a fifth of each class is the test split
    caption       optional: text that belongs to the image, given by captions_of
    group         optional: a second division of the images, over which accuracy should not vary

``classnames.txt`` and ``templates.txt`` beside the table say class names and prompt templates, as for folders of images.
Cells are text as it is: a class may be called ``NA`` or ``007``. No image is opened, but the first one has to be there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError
from datasets.image_files import ImageFiles
from datasets.own.division import known_split, split_of
from datasets.own.imagefolder import DEFAULT_TEMPLATES
from datasets.own.labels import named_classes
from datasets.parquet_images import ParquetImages
from datasets.parquet_table import class_names, image_column, open_parquet, read_texts
from datasets.samples import Samples
from datasets.task import Groups, Task, read_template_file

PATHS = ("path", "image", "filepath", "filename", "file")
LABELS = ("label", "labels")
NAMES = ("classname", "class", "class_name")
OTHERS = ("split", "caption", "group")


@dataclass(frozen=True)
class Table:
    """The cells of a table as text, by lower-case column name; ``images`` where they are in the table itself."""

    path: Path
    cells: pd.DataFrame
    images: Samples | None = None
    has_lines: bool = False  # as text files have; then the index of the cells counts them after the header

    def column(self, *names: str) -> NDArray[np.object_] | None:
        """The first column of these names, without an empty cell; None where there is none."""
        name = next((name for name in names if name in self.cells), None)
        if name is None:
            return None
        empty = self.cells[name].str.strip() == ""
        if empty.any():
            raise UserError(f"{self.place(int(empty.to_numpy().argmax()))} has nothing in the column '{name}'.")
        return self.cells[name].to_numpy(dtype=object)

    def place(self, row: int) -> str:
        """Where a row is, as the start of a sentence: the line of a CSV file, the row (from 1) of a parquet file."""
        if not self.has_lines:
            return f"Row {row + 1} of '{self.path}'"
        above = self.cells.iloc[:row]
        inside = sum(int(above[name].str.count("\n").sum()) for name in above)  # a quoted cell may have several lines
        return f"Line {int(self.cells.index[row]) + 2 + inside} of '{self.path}'"

    def samples(self) -> Samples:
        """The images, without opening them."""
        if self.images is not None:
            return self.images
        paths = self.column(*PATHS)
        if paths is None:
            raise UserError(f"'{self.path}' has no column 'path' of image files; its columns: {', '.join(map(str, self.cells))}.")
        twice = pd.Series(paths).duplicated().to_numpy()
        if twice.any():
            raise UserError(f"{self.place(int(twice.argmax()))} lists the image '{paths[twice.argmax()]}' a second time; list each once.")
        if not (self.path.parent / paths[0]).is_file():
            raise UserError(
                f"{self.place(0)} names the image '{paths[0]}', which is not there; paths are relative to '{self.path.parent}'."
            )
        return ImageFiles.of(self.path.parent, [path.encode() for path in paths])


def csv_task(where: str, split: str, val_p: float, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.OwnSource`."""
    return _task(f"csv:{where}", read_csv_table(Path(where).expanduser()), split, val_p)


def parquet_task(where: str, split: str, val_p: float, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.OwnSource`."""
    return _task(f"parquet:{where}", read_parquet_table(Path(where).expanduser(), data_dir), split, val_p)


def captions_of(table: Table) -> dict[str, str]:
    """The caption of each image, by its sample id; a :class:`UserError` without such a column."""
    captions, samples = table.column("caption"), table.samples()
    if captions is None:
        raise UserError(f"'{table.path}' has no column 'caption'; its columns: {', '.join(map(str, table.cells))}.")
    return {samples.sample_id(row): str(caption) for row, caption in enumerate(captions)}


def _task(name: str, table: Table, split: str, val_p: float) -> Task:
    samples, (labels, classnames) = table.samples(), _classes(table)
    templates = table.path.parent / "templates.txt"
    whole = Task(
        name=name,
        split="all",
        samples=samples,
        labels=labels,
        classnames=classnames,
        templates=read_template_file(templates) if templates.exists() else DEFAULT_TEMPLATES,
        groups=_groups(table),
    )
    return split_of(whole, _splits(table), split, val_p)


def _classes(table: Table) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    labels, names = table.column(*LABELS), table.column(*NAMES)
    if labels is None and names is None:
        raise UserError(f"'{table.path}' has no column 'label' or 'classname'; its columns: {', '.join(map(str, table.cells))}.")
    if labels is None:
        labels, names = names, None
    assert labels is not None
    return named_classes(f"'{table.path}'", labels, names, table.path.parent / "classnames.txt")


def _splits(table: Table) -> NDArray[np.object_] | None:
    texts = table.column("split")
    if texts is None:
        return None
    codes, found = pd.factorize(texts)
    known = [known_split(text) for text in found]
    if None in known:
        row = int((codes == known.index(None)).argmax())
        raise UserError(f"{table.place(row)} has the split '{texts[row]}'; expected train, val or test.")
    return np.array(known, dtype=object)[codes]


def _groups(table: Table) -> Groups | None:
    texts = table.column("group")
    if texts is None:
        return None
    codes, names = pd.factorize(texts, sort=True)
    return Groups("group", tuple(map(str, names)), codes.astype(np.int64))


def read_csv_table(path: Path) -> Table:
    """A CSV file; pandas reads it, but takes no cell for a number or for missing."""
    options = {"dtype": str, "keep_default_na": False, "na_filter": False, "index_col": False, "skipinitialspace": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than the header
            cells = pd.read_csv(path, encoding="utf-8-sig", skip_blank_lines=False, **options)  # type: ignore[call-overload]
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is not a readable CSV table ({str(error).strip().rstrip('.')}).") from error
    cells = cells.fillna("").astype(object)
    return _checked(Table(path, cells[(cells != "").any(axis=1)], has_lines=True))


def read_parquet_table(path: Path, data_dir: Path) -> Table:
    """A parquet file; the names of a label column of type ClassLabel become the column ``classname``."""
    schema = open_parquet(path).schema_arrow
    image = image_column(schema)
    by_name = {name.lower(): name for name in schema.names}
    wanted = [name for name in (*PATHS, *LABELS, *NAMES, *OTHERS) if by_name.get(name, image) != image]
    cells = pd.DataFrame({name: read_texts([path], by_name[name]) for name in wanted}, dtype=object)
    label = next((name for name in LABELS if name in cells), None)
    names = class_names(schema, by_name[label]) if label else None
    if names and not any(name in cells for name in NAMES):
        cells["classname"] = [names[int(text)] if text.isdigit() and int(text) < len(names) else "" for text in cells[label]]
    images = ParquetImages.of([path], image, data_dir) if image else None
    return _checked(Table(path, cells, images))


def _checked(table: Table) -> Table:
    if not len(table.cells):
        raise UserError(f"'{table.path}' lists no image.")
    cells = table.cells.rename(columns=lambda name: str(name).strip().lower())
    if twice := cells.columns[cells.columns.duplicated()].tolist():
        raise UserError(f"'{table.path}' has two columns '{twice[0]}' that differ in capitals only; rename one.")
    return replace(table, cells=cells)
