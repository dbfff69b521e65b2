"""The documentation's table of data sets, made from the registry, the prompts and the table of downloads.

python -m datasets.document > docs/data_sets.md
"""

from __future__ import annotations

from datasets.downloads.entries import Entry
from datasets.downloads.get import gigabytes
from datasets.downloads.manifest import ENTRIES, find_entry
from datasets.naming import CONVENTIONS, CORRUPTIONS, NOTES
from datasets.prompts import prompt_names
from datasets.registry import OWN_SOURCES, SOURCES
from datasets.retrieval.table import RETRIEVAL

HEAD = """# Data sets

Made from the tables of `datasets/` by `python -m datasets.document > docs/data_sets.md`. `python download_datasets.py --list NAME` says of
each how it is had and which files are looked for; which images a name stands for, and in which order, is in the docstring of its file.

A name is `NAME[@SPLITS][+CORRUPTION-SEVERITY]`, e.g. `DTD`, `DTD@paper`, `Cars@hub+gaussian_noise-3`. Without `@` the first of the splits
is meant. Besides these there are Digits, the drawn tasks and the drawn captions Shapes-Captions, which need no files, and own data:
{own}.

## Classification

| name | splits | prompts | fetch | how | licence |
|---|---|---|---|---|---|
"""
RETRIEVED = """
## Retrieval and texts

Every classification data set serves for retrieval too.

| name | queries and gallery | splits | fetch | how | licence |
|---|---|---|---|---|---|
"""


def document() -> str:
    """The page as Markdown."""
    own = ", ".join(f"`{scheme}:{source.expected}`" for scheme, source in OWN_SOURCES.items())
    classification = "".join(_classification(name) for name in SOURCES if _has_files(name))
    retrieval = "".join(_retrieval(name) for name in RETRIEVAL if _has_files(name))
    return HEAD.format(own=own) + classification + _splits() + _corruptions() + RETRIEVED + retrieval


def _has_files(name: str) -> bool:
    return name in ENTRIES or any(name in entry.aliases for entry in ENTRIES.values())


def _classification(name: str) -> str:
    conventions = [convention for convention in SOURCES[name] if not convention.startswith("hub-")]
    stored = len(SOURCES[name]) - len(conventions)
    splits = ", ".join(conventions) + (f", {stored} hub-CORRUPTION" if stored else "")
    return _row(f"`{name}`", splits, ", ".join(prompt_names(name)), *_download(find_entry(name)))


def _retrieval(name: str) -> str:
    source = RETRIEVAL[name]
    return _row(f"`{name}`", " or ".join(source.modalities), ", ".join(source.splits), *_download(find_entry(name)))


def _download(entry: Entry) -> tuple[str, str, str]:
    by_hand = [download.by_hand for download in entry.needed()]
    how = "by hand" if by_hand and all(by_hand) else "partly by hand" if any(by_hand) else "fetched"
    return gigabytes(entry.size) if entry.size else "?", how, entry.licence


def _splits() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in CONVENTIONS.items() if not name.startswith("hub-")]
    rows += [("`hub-CORRUPTION`", "the test images that the hub keeps corrupted, as they are stored")]
    rows += [(f"`{name}@{convention}`", note) for (name, convention), note in NOTES.items()]
    return "\n## Splits\n\n| splits | meaning |\n|---|---|\n" + "".join(_row(*row) for row in rows)


def _corruptions() -> str:
    kinds = ", ".join(f"`{kind}`" for kind in CORRUPTIONS)
    return f"\n## Corruptions\n\n{kinds}; severities 1 to 5. See `datasets/corruptions/` for the constants and what they are relative to.\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


if __name__ == "__main__":
    print(document(), end="")
