"""The documentation's table is that of the code."""

from pathlib import Path

from metrics.document import document
from metrics.table import METRICS


def test_the_page_is_current():
    assert (Path(__file__).parents[2] / "docs" / "measures.md").read_text(encoding="utf-8") == document()


def test_every_measure_has_its_line():
    lines = document().splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")][: len(METRICS)] == list(METRICS)
