"""A report as one HTML file that needs no other: pictures are inside it, the style is a few lines of CSS, there is no script.

Only the links to the cells' JSON files, to the CSV tables and to the PDF figures lead to what lies beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from PIL import Image

from common.figures import Drawn
from study.report.document import Block, Bullets, Code, Column, Document, Line, Section, Table, Text, Traced, Value

MOST_LINKS = 4  # in a row; more are folded away
SENTENCE = 60  # letters; a longer text is no name
PIXELS = 110  # of the screen to an inch of the figure
STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1b1b1b; background: #fff;
  max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #ccc; }
a { color: #0059a3; text-decoration: none; } a:hover { text-decoration: underline; }
nav { background: #f5f6f7; padding: .6rem 1rem; margin: 1rem 0; } nav ul { columns: 3 12rem; margin: 0; padding-left: 1.1rem; }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
.caption { font-size: .84rem; color: #444; max-width: 48rem; margin: 1rem 0 -.3rem; }
th, td { padding: .16rem .9rem .16rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid #444; vertical-align: bottom; } tbody tr { border-bottom: 1px solid #eaeaea; }
th.number, td.number { text-align: right; white-space: nowrap; } td.number a { color: inherit; }
td.words { min-width: 14rem; }
td.cells { font-size: .78rem; color: #555; max-width: 18rem; } td.cells a { margin-right: .35rem; white-space: nowrap; }
figure { margin: 1rem 0 1.6rem; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .84rem; color: #444; max-width: 48rem; }
pre { background: #f5f6f7; padding: .7rem 1rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
@media print {
  @page { size: landscape; margin: 12mm; } figure img { max-height: 165mm; width: auto; }
  body { font-size: 9pt; max-width: none; margin: 0; padding: 0; } .scroll, pre { overflow: visible; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; } thead { display: table-header-group; } pre { white-space: pre-wrap; }
  table { font-size: 7pt; } .caption, figcaption { font-size: 8pt; } td.words { min-width: 0; }
  th, td { padding-right: .45rem; } .cells { display: none; }
}
"""


def to_html(document: Document) -> str:
    """The whole report; whatever comes from plans and cells is escaped."""
    contents = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>\n' for section in document.sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(document.title)}</h1>\n<p>{escape(document.about)}</p>\n"
        f'<nav aria-label="Contents">\n<ul>\n{contents}</ul>\n</nav>\n'
        f"<main>\n{''.join(_section(section) for section in document.sections)}</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    blocks = "".join(_block(block) for block in section.blocks)
    return f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n{blocks}</section>\n'


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Bullets):
        return f"<ul>\n{''.join(f'<li>{escape(item)}</li>{chr(10)}' for item in block.items)}</ul>\n"
    if isinstance(block, Code):
        return f"<pre>{escape(block.text.rstrip())}</pre>\n"
    if isinstance(block, Drawn):
        return _picture(block)
    return f"<p>{escape(block.text)}</p>\n" if isinstance(block, Text) else ""


def _picture(drawn: Drawn) -> str:
    with Image.open(drawn.png) as image:
        width = round(image.width / image.info.get("dpi", (300, 300))[0] * PIXELS)
    data = base64.b64encode(drawn.png.read_bytes()).decode("ascii")
    caption, pdf = escape(drawn.caption), quote(f"{drawn.pdf.parent.name}/{drawn.pdf.name}")
    image_tag = f'<img src="data:image/png;base64,{data}" width="{width}" alt="{caption}">'
    return f'<figure>\n{image_tag}\n<figcaption>{caption} (<a href="{pdf}">PDF</a>)</figcaption>\n</figure>\n'


def _table(table: Table) -> str:
    source = f' (<a href="tables/{quote(table.name)}.csv">CSV</a>)' if table.name else ""
    caption = f'<p class="caption">{escape(table.caption)}{source}</p>\n' if table.caption or source else ""
    head = "".join(f"<th{_class(column)}>{escape(column.name)}</th>" for column in table.columns) + (
        '<th class="cells">cells</th>' if table.traced else ""
    )
    body = "".join(_row(table, row) for row in table.rows)
    return f'{caption}<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'


def _row(table: Table, row: Line) -> str:
    cells = "".join(
        f"<td{_class(column, value)}>{_value(column, value)}</td>" for column, value in zip(table.columns, row.values, strict=True)
    )
    return f"<tr>{cells}{f'<td class={chr(34)}cells{chr(34)}>{_links(row.cells)}</td>' if table.traced else ''}</tr>\n"


def _class(column: Column, value: Value | Traced = None) -> str:
    """Numbers stand at the right; sentences are not squeezed by the columns beside them."""
    if column.format:
        return ' class="number"'
    return ' class="words"' if isinstance(value, str) and len(value) > SENTENCE else ""


def _value(column: Column, value: Value | Traced) -> str:
    if not isinstance(value, Traced):
        return escape(column.text(value))
    text = escape(column.text(value.value))
    return f'<a href="{quote(value.cells[0])}" title="{escape(" ".join(value.cells))}">{text}</a>' if value.cells else text


def _links(cells: Sequence[str]) -> str:
    """A link to each cell's JSON; many are folded away behind their number."""
    links = "".join(f'<a href="{quote(cell)}" title="{escape(cell)}">{number}</a>' for number, cell in enumerate(cells, 1))
    return f"<details><summary>{len(cells)} files</summary>{links}</details>" if len(cells) > MOST_LINKS else links
