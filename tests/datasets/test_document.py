"""The documentation's table is that of the code."""

from pathlib import Path

from datasets.document import document
from datasets.registry import SOURCES


def test_the_page_is_current():
    """If not: python -m datasets.document > docs/data_sets.md."""
    assert (Path(__file__).parents[2] / "docs" / "data_sets.md").read_text(encoding="utf-8") == document()


def test_every_data_set_with_files_is_listed():
    listed = {line.split("`")[1] for line in document().splitlines() if line.startswith("| `")}
    built_in = {name for name in SOURCES if name == "Digits" or name.startswith(("Shapes-", "Glyphs-"))}
    assert set(SOURCES) - built_in <= listed
