"""The blocks that a report is made of, and their tables as CSV. How they look is study.report.html's and .markdown's concern."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.figures import Drawn
from common.files import write_text

Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column's heading and how its numbers are written; without a format it holds text."""

    name: str
    format: str = ""

    def text(self, value: Value) -> str:
        """A value as the report shows it; an unknown one is a dash."""
        if value is None:
            return "–"
        return format(value, self.format) if self.format and not isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Traced:
    """A number in a matrix, with the cells' JSON files that it comes from."""

    value: Value
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A row of a table and the cells' JSON files, relative to the study's folder, that its numbers come from."""

    values: tuple[Value | Traced, ...]
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table; one that has a name is also written as NAME.csv."""

    columns: tuple[Column, ...]
    rows: Sequence[Line]
    name: str = ""
    caption: str = ""

    @property
    def traced(self) -> bool:
        """Whether there is a last column of links to cells."""
        return any(row.cells for row in self.rows)

    def without_empty_columns(self) -> Table:
        """The table without the columns that have no value in any row."""
        kept = [index for index in range(len(self.columns)) if any(row.values[index] not in (None, "") for row in self.rows)]
        rows = [Line(tuple(row.values[index] for index in kept), row.cells) for row in self.rows]
        return Table(tuple(self.columns[index] for index in kept), rows, self.name, self.caption)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text that is shown as it is."""

    text: str


Block = Table | Text | Bullets | Code | Drawn


@dataclass(frozen=True)
class Section:
    """A part of the report; ``anchor`` is its place in links."""

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    about: str
    sections: Sequence[Section]


def write_csv(table: Table, folder: Path) -> Path:
    """The table with all digits; its last column names the cells' files, one space between two."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(column.name for column in table.columns), *(["cells"] if table.traced else [])])
    for row in table.rows:
        values = [value.value if isinstance(value, Traced) else value for value in row.values]
        writer.writerow(["" if value is None else value for value in values] + ([" ".join(row.cells)] if table.traced else []))
    path = folder / f"{table.name}.csv"
    write_text(path, text.getvalue())
    return path
