"""The results of a run: a JSON file that grows row by row, the page made of it, and the README's table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import sentence
from benchmarks.rows import Row
from benchmarks.runs import Bench
from benchmarks.table import markdown
from common.errors import UserError
from common.files import write_json, write_text

FORMAT = "clipscope-bench/1"
BEGIN, END = "<!-- speed: begin (make bench writes what follows) -->\n", "<!-- speed: end -->\n"
COLUMNS = """Both ways of a row were run in turn, each in a process of its own. Median seconds (least–most); MiB that the process
held before, that is libraries and input, + those that the work added at its peak.
"""


@dataclass
class Results:
    """What has been measured on a machine until now; :meth:`add` keeps it, :meth:`finish` makes it the machine's results.

    Until then the rows are in ``NAME.partial.json``, so that a run that is broken off leaves those of the last whole one.
    Without a ``folder`` nothing is written.
    """

    machine: dict[str, Any]
    size: str
    folder: Path | None
    name: str
    done: list[tuple[Bench, Row]] = field(default_factory=list)

    def path(self, ending: str) -> Path:
        """A file of the results."""
        return (self.folder or Path()) / f"{self.name}{ending}"

    def add(self, bench: Bench, row: Row) -> None:
        """A finished row."""
        self.done.append((bench, row))
        if self.folder is not None:
            write_json(self.path(".partial.json"), self.document())

    def finish(self) -> None:
        """Write the JSON file and the page of the whole run."""
        if self.folder is not None:
            write_json(self.path(".json"), self.document())
            write_text(self.path(".md"), f"# Speed and memory: {self.name}\n\n{self.table()}\n{self.commands()}")
            self.path(".partial.json").unlink(missing_ok=True)

    @property
    def failed(self) -> bool:
        """Whether a row failed."""
        return any(row.failed for _, row in self.done)

    def document(self) -> dict[str, Any]:
        """Everything, for programs."""
        rows = [{"command": bench.command, **asdict(row), "ratio": row.ratio} for bench, row in self.done]
        return {"format": FORMAT, "size": self.size, "machine": self.machine, "rows": rows}

    def table(self) -> str:
        """The machine, the table, and what its columns mean."""
        return f"{sentence(self.machine)}.\n\n{markdown(row for _, row in self.done)}\n{COLUMNS}"

    def commands(self) -> str:
        """What runs each part of the table alone."""
        commands = dict.fromkeys(bench.command for bench, _ in self.done)
        return "Its parts alone:\n\n```\n" + "".join(f"{command}\n" for command in commands) + "```\n"


def check_markers(page: Path) -> str:
    """The text of a page that has the markers, once each, in order; a :class:`UserError` otherwise."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"'{page}' has no place for the table: a line '{BEGIN.strip()}' and, below it, one '{END.strip()}'.")
    return text


def renew(page: Path, table: str) -> None:
    """Put ``table`` between the markers of ``page``, in place of what is there."""
    text = check_markers(page)
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(page, f"{before}{BEGIN}{table}{END}{after}")
