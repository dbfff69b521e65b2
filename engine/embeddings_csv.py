"""The pair of CSV files in which the released IIMM code keeps embeddings.

``..._image_embeddings[_zs].csv`` has one row per image: D numbers, then ``label``, the name of its class. Beside it,
``..._text_embeddings[_zs].csv`` has one row per class in the same columns. The reader asks for no more than that: an
index column may come first, the label column may stand anywhere and be called label, labels, target or class, and
images may name their class by its row number in the text file.

Numbers are written with nine significant digits, which is enough for every float32 to come back exactly.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing

IMAGE_PART, TEXT_PART, METADATA_PART = "image_embeddings", "text_embeddings", "metadata"
LABEL_COLUMNS = ("label", "labels", "target", "class")
INDEX_COLUMNS = ("", "index", "unnamed: 0")


class Pair(NamedTuple):
    """What the two files hold: images float32 [N, D], texts float32 [C, D], labels int64 [N], C class names."""

    image_embeddings: NDArray[np.float32]
    text_embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    classnames: list[str]


def pair_paths(path: Path) -> tuple[Path, Path, Path]:
    """The image file, the text file and the metadata sidecar of a pair, given either of the first two."""
    for part in (IMAGE_PART, TEXT_PART):
        if part in path.name:
            head, _, tail = path.name.rpartition(part)
            image, text = (path.with_name(head + other + tail) for other in (IMAGE_PART, TEXT_PART))
            return image, text, path.with_name(head + METADATA_PART + tail).with_suffix(".json")
    raise UserError(f"'{path}' is not one of a CSV pair: its name must contain '{IMAGE_PART}' or '{TEXT_PART}'.")


def write_pair(path: Path, pair: Pair) -> None:
    """Write both files; the image file, by which readers know the pair, comes last."""
    image_path, text_path, _ = pair_paths(path)
    unique = len(set(pair.classnames)) == len(pair.classnames)
    labels = [pair.classnames[label] if unique else str(label) for label in pair.labels.tolist()]
    _write(text_path, pair.text_embeddings, pair.classnames)
    _write(image_path, pair.image_embeddings, labels)


def read_pair(path: Path) -> Pair:
    """Read both files, given either; UserError names the file that is missing or is not such a table."""
    image_path, text_path, _ = pair_paths(path)
    images, image_labels = _read(image_path)
    texts, text_labels = _read(text_path)
    if image_labels is None:
        raise UserError(f"'{image_path}' has no label column; one of its columns must be called {', '.join(LABEL_COLUMNS)}.")
    classnames = text_labels or [str(row) for row in range(len(texts))]
    return Pair(images, texts, _label_numbers(image_path, image_labels, classnames), classnames)


def _write(path: Path, rows: NDArray[np.float32], labels: Iterable[str]) -> None:
    pattern = ",".join(["%.9g"] * rows.shape[1]) + ",%s\n"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(map(str, range(rows.shape[1]))) + ",label\n")
        for row, label in zip(rows, labels, strict=True):
            quoted = '"' + label.replace('"', '""') + '"'
            stream.write(pattern % (*row.tolist(), quoted))


def _read(path: Path) -> tuple[NDArray[np.float32], list[str] | None]:
    """The numbers of one file and, when it has such a column, its labels as they are written."""
    header = _header(path)
    names = [name.strip().lower() for name in header]
    labels = [position for position, name in enumerate(names) if name in LABEL_COLUMNS]
    if len(labels) > 1:
        raise UserError(f"'{path}' has two label columns, '{header[labels[0]]}' and '{header[labels[1]]}'; remove one.")
    index = [0] if names[0] in INDEX_COLUMNS else []
    frame = _parse(path, len(header), texts=[*labels, *index])
    numbers = frame.drop(columns=[*labels, *index]).to_numpy(np.float32)  # column by column in memory
    return np.ascontiguousarray(numbers), frame[labels[0]].tolist() if labels else None


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream), None)
    except FileNotFoundError as error:
        raise UserError(f"No such file: '{path}'.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' is not a readable CSV table: {error}.") from error
    if not header:
        raise UserError(f"'{path}' is empty; expected a CSV table with a header line.")
    return header


def _parse(path: Path, width: int, texts: Sequence[int]) -> Any:
    """The data frame, columns numbered from 0. Text stays as written: a class may be called 'nan' or '007'."""
    import pandas

    types: dict[int, type] = {position: str if position in texts else np.float32 for position in range(width)}
    options: dict[str, Any] = {
        **{"header": 0, "names": list(types), "index_col": False, "dtype": types, "encoding": "utf-8-sig"},
        **{"keep_default_na": False, "na_values": {position: "nan" for position, kind in types.items() if kind is not str}},
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # rows with more cells than the header: data would be lost
            warnings.simplefilter("ignore", RuntimeWarning)  # beyond float32: infinite, which the embeddings refuse
            return pandas.read_csv(path, **options)
    except (OSError, ValueError, pandas.errors.ParserWarning) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"'{path}' is not a table of numbers with a label column: {reason}.") from error


def _label_numbers(path: Path, labels: Sequence[str], classnames: Sequence[str]) -> NDArray[np.int64]:
    """Labels as numbers: by class name where the names are unique and cover them, else read as row numbers."""
    numbers = {name: number for number, name in enumerate(classnames)}
    if len(numbers) == len(classnames) and numbers.keys() >= set(labels):
        return np.array([numbers[label] for label in labels], np.int64)
    return np.array([_row_number(path, label, classnames) for label in labels], np.int64)


def _row_number(path: Path, label: str, classnames: Sequence[str]) -> int:
    try:
        number = float(label)
    except ValueError:
        number = -1.0
    if not (number.is_integer() and 0 <= number < len(classnames)):
        known = "its text file's classes" if len(classnames) > 5 else ", ".join(classnames)
        raise UserError(
            f"'{path}' has the label '{label}', which is neither a class name ({known}) nor a number in 0..{len(classnames) - 1}."
        )
    return int(number)
