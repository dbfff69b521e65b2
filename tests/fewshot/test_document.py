"""The documentation's table is that of the code."""

from pathlib import Path

from fewshot.document import document
from fewshot.table import METHODS


def test_the_page_is_current():
    assert (Path(__file__).parents[2] / "docs" / "few_shot.md").read_text(encoding="utf-8") == document()


def test_every_method_has_its_line():
    assert [line.split("`")[1] for line in document().splitlines() if line.startswith("| `")] == list(METHODS)
