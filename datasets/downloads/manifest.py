"""The table of downloads: where every data set comes from, and which of its files go where below the data folder.

What is stated here was taken from published code, not tried: addresses, sizes and MD5 sums are those of torchvision's data
sets (a test compares those that it still has), of TensorFlow Datasets' lists of checksums (sizes, SHA-256), of TorchGeo (RESISC45) and of
scikit-learn (20 Newsgroups); CUB's and SOP's sums are those that metric learning libraries check. ``checksum=None`` means that no sum
is published for that file: only its length and what it unpacks to can be checked. Sizes without a source are rounded. What
has no address that a program may use, or none that is sure, is got by hand, and the entry says how.

Licences are notes for orientation; the page of the data set has the terms. Adding a data set takes one entry here.
"""

from __future__ import annotations

from common.errors import UserError, unknown_name
from datasets.downloads.classification import CLASSIFICATION
from datasets.downloads.entries import Entry
from datasets.downloads.retrieval import RETRIEVAL
from datasets.naming import parse_name
from datasets.registry import OWN_SOURCES
from datasets.retrieval.table import retrieval_names

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*CLASSIFICATION, *RETRIEVAL)}


def find_entry(name: str, entries: dict[str, Entry] | None = None) -> Entry:
    """The entry for a data set's name with or without a split convention; a :class:`~common.errors.UserError` when there is none."""
    known = ENTRIES if entries is None else entries
    parts = parse_name(name)
    base = parts.base
    by_name = known | {alias: entry for entry in known.values() for alias in entry.aliases}
    if base in set(retrieval_names()) - by_name.keys() or parts.scheme in OWN_SOURCES:
        raise UserError(f"There is nothing to get for '{base}', which {'is your own' if parts.scheme else 'needs no files'}.")
    if base not in by_name:
        raise unknown_name("data set", base, by_name)
    return by_name[base]


def got_by_hand(name: str, path: str) -> bool:
    """Whether ``path``, of the data set ``name``, is what no program fetches; False for names without an entry."""
    entry = ENTRIES.get(name) or next((entry for entry in ENTRIES.values() if name in entry.aliases), None)
    for download in entry.downloads if entry else ():
        for place in (place for item in download.items for place in (item.path, *item.others)):
            if f"{path}/".startswith(f"{place}/") or place.startswith(f"{path}/"):
                return download.by_hand
    return False
