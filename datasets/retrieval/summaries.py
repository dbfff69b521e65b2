"""Texts that take the place of long ones.

A text encoder reads the first 77 tokens or fewer; the rest of a review or message is cut off by its tokenizer. Cross the Gap
searches summaries that a language model wrote. Those are not part of any data set: without a file of them the texts are searched
as they are. The file is either of::

    summaries.csv     id,summary
                      0,"One of the reviewers says that after one episode ..."
    summaries.json    {"0": "One of the reviewers says that after one episode ...", ...}

with a summary for every id of the gallery; others may be there too. Ids are, of IMDB, rows of its CSV from 0; of 20Newsgroups,
``group/number``; of NanoBEIR, ``_id``.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from datasets.retrieval.collection import Collection, Texts

COLUMNS = ["id", "summary"]


def summarised(gallery: Collection, path: Path | None) -> Collection:
    """``gallery`` with the summaries of the file in place of its texts, or as it is where there is no file."""
    if path is None:
        return gallery
    summaries = read_summaries(path.expanduser())
    if lacking := [name for name in gallery.ids if name not in summaries]:
        raise UserError(f"'{path}' has no summary of {len(lacking)} of {len(gallery)} texts, e.g. of '{lacking[0]}'.")
    return replace(gallery, items=Texts(tuple(summaries[name] for name in gallery.ids), tuple(gallery.ids)))


def called(name: str, path: Path | None) -> str:
    """The task's name, which says when summaries are searched."""
    return name if path is None else f"{name}-summaries"


def read_summaries(path: Path) -> dict[str, str]:
    """The summaries by id."""
    if path.suffix == ".json":
        summaries = read_json(path)
        if not isinstance(summaries, dict) or not all(isinstance(text, str) for text in summaries.values()):
            raise UserError(f"'{path}' must be one JSON object of texts by id.")
        return summaries
    if path.suffix != ".csv":
        raise UserError(f"'{path}' must be a .csv file with the columns id,summary, or a .json file of texts by id.")
    header, *rows = read_csv(path) or [[]]
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"'{path}' must have the columns id,summary in every row, the header included.")
    summaries = dict(rows)
    if len(summaries) < len(rows):
        twice = next(key for key, count in Counter(key for key, _ in rows).items() if count > 1)
        raise UserError(f"'{path}' has '{twice}' twice; which summary counts cannot be told.")
    return summaries


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a comma-separated file, quoted where needed; empty lines are left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, strict=True) if row]
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is damaged, or is no CSV file: {error}.") from error
