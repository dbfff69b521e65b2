"""The documentation's table is that of the code."""

from pathlib import Path

from merging.document import document
from merging.table import METHODS


def test_the_page_is_current():
    assert (Path(__file__).parents[2] / "docs" / "merging.md").read_text(encoding="utf-8") == document()


def test_every_method_has_its_line():
    assert [line.split("`")[1] for line in document().splitlines() if line.startswith("| `")] == list(METHODS)
