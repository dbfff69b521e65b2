"""A report as Markdown, as GitHub reads it. All that comes from plans and cells is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from common.figures import Drawn
from study.report.document import Block, Bullets, Code, Column, Document, Line, Table, Text, Traced, Value

MOST_LINKS = 4  # in a row; the CSV has all


def to_markdown(document: Document, out: Path) -> str:
    """The whole report; links and pictures are relative to ``out``."""
    parts = [f"# {escaped(document.title)}", escaped(document.about)]
    parts.append("\n".join(f"- [{escaped(section.title)}](#{section.anchor})" for section in document.sections))
    for section in document.sections:
        parts.append(f'<a id="{section.anchor}"></a>\n\n## {escaped(section.title)}')
        parts += [_block(block, out) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Text in which no sign means anything to Markdown or HTML, on one line."""
    text = re.sub(r"([\\`*\[\]<>|#~&$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word an underscore is only that


def _block(block: Block, out: Path) -> str:
    if isinstance(block, Table):
        return "\n".join(_table(block))
    if isinstance(block, Bullets):
        return "\n".join(f"- {escaped(item)}" for item in block.items)
    if isinstance(block, Code):
        return f"{_fence(block.text)}\n{block.text.rstrip()}\n{_fence(block.text)}"
    if isinstance(block, Drawn):
        png, pdf = (quote(path.relative_to(out).as_posix()) for path in (block.png, block.pdf))
        return f"![{escaped(block.caption)}]({png})\n\n*{escaped(block.caption)}* ([PDF]({pdf}))"
    return escaped(block.text) if isinstance(block, Text) else ""


def _fence(text: str) -> str:
    """Longer than any run of backticks in the text."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _table(table: Table) -> Iterator[str]:
    names = [*(column.name for column in table.columns), *(["cells"] if table.traced else [])]
    rules = [*("---:" if column.format else "---" for column in table.columns), *(["---"] if table.traced else [])]
    if table.caption:
        yield f"{escaped(table.caption)}\n"
    yield _row([escaped(name) for name in names])
    yield _row(rules)
    for row in table.rows:
        cells = [_value(column, value) for column, value in zip(table.columns, row.values, strict=True)]
        yield _row([*cells, *([_links(row, table)] if table.traced else [])])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(column: Column, value: Value | Traced) -> str:
    if not isinstance(value, Traced):
        return escaped(column.text(value))
    text = escaped(column.text(value.value))
    return f"[{text}]({quote(value.cells[0])})" if value.cells else text


def _links(row: Line, table: Table) -> str:
    if len(row.cells) > MOST_LINKS and table.name:
        return f"[{len(row.cells)} files](tables/{quote(table.name)}.csv)"
    return " ".join(f"[{number}]({quote(cell)})" for number, cell in enumerate(row.cells, 1))
