"""FER2013: faces in seven moods, grey images of 48 x 48 pixels (Goodfellow et al., "Challenges in representation learning", 2013).

Layout, CSV with a header; the first of these files that is there is read::

    fer2013/fer2013.csv            emotion,pixels,Usage
    fer2013/icml_face_data.csv     emotion, Usage, pixels      (blanks in the header)
    fer2013/{train,test}.csv       emotion,pixels              (the competition's own test.csv has no emotion, so it cannot serve)

``pixels`` are 2304 numbers separated by blanks, row by row. Of a file with ``Usage``, the training split is ``Training``, the
test split ``PublicTest`` and ``PrivateTest``, in the order of the file.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.decoding import reason
from datasets.facts import classnames
from datasets.places import find
from datasets.sources.arrays import raw_task
from datasets.task import Task

SIDE = 48
USAGES = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
EMOTIONS = {"0": "angry", "1": "disgusted", "2": "fearful", "3": "happy", "4": "sad", "5": "surprised", "6": "neutral"}

Row = dict[str, str]


def fer2013_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``; see :class:`~datasets.registry.Source`.

    Classes are in the order of the published names, which is the alphabet's and not that of the files' numbers.
    """
    path = find(name, data_dir, *(f"fer2013/{file}.csv" for file in ("fer2013", "icml_face_data", split)))
    rows = [(_pixels(row, path, line), _emotion(row, path, line)) for line, row in _rows(path, split)]
    pixels = np.array([pixels for pixels, _ in rows], dtype=np.uint8).reshape(-1, SIDE, SIDE)
    published = classnames("fer2013")
    labels = np.array([published.index(emotion) for _, emotion in rows], dtype=np.int64)
    return raw_task(name, split, pixels, labels, published, path)


def _rows(path: Path, split: str) -> Iterator[tuple[int, Row]]:
    """The rows of a split, each with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_header(reader.fieldnames or (), path)
            for row in reader:
                if row.get("Usage", USAGES[split][0]) in USAGES[split]:
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Cannot read '{path}' as CSV: {reason(error)}.") from error


def _check_header(columns: Sequence[str], path: Path) -> None:
    if "pixels" not in columns:
        raise UserError(f"'{path}' has no column 'pixels'; expected the CSV of FER2013, with 'emotion' and 'pixels'.")
    if "emotion" not in columns:
        raise UserError(f"'{path}' has no labels, as Kaggle's competition gives it; put fer2013.csv or icml_face_data.csv beside it.")


def _emotion(row: Row, path: Path, line: int) -> str:
    number = row["emotion"]
    if number not in EMOTIONS:
        raise UserError(f"'{path}' line {line}: the emotion '{number}' is not a number from 0 to {len(EMOTIONS) - 1}; get the file anew.")
    return EMOTIONS[number]


def _pixels(row: Row, path: Path, line: int) -> NDArray[np.uint8]:
    values = _numbers(row["pixels"] or "")
    if len(values) != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise UserError(f"'{path}' line {line}: pixels are not {SIDE * SIDE} numbers from 0 to 255; get the file anew.")
    return values.astype(np.uint8)


def _numbers(text: str) -> NDArray[np.int64]:
    """Numbers between blanks, five times as fast as ``split`` and ``int``; fewer when something else is among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what NumPy 1 gives in the place of the error
        try:
            return np.fromstring(text, dtype=np.int64, sep=" ")
        except ValueError:
            return np.empty(0, np.int64)
