"""Fetch data sets of the Hugging Face hub as local copies, ``DATA_DIR/hub/ORG/NAME``.

The hub's own client does the work: it resumes, checks what it gets, and knows mirrors (``HF_ENDPOINT``), tokens and proxies.
Files arrive in a hidden folder beside, since a folder of that name counts as a copy that is whole.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.files import ensure_folder, locked
from datasets.downloads.entries import Entry


def hub_copy(repository: str, data_dir: Path) -> Path:
    """Where the local copy of ``ORG/NAME`` is, or would be."""
    return data_dir / "hub" / repository


def repository_of(entry: Entry, convention: str | None) -> str:
    """The repository of an entry, or of ``NAME@hub``; empty for what is no set of the hub."""
    if not (convention or "").startswith("hub"):
        return entry.hub
    from datasets.sources.hub_sets import HUB_SETS

    return HUB_SETS[entry.name].repository


def fetch_from_hub(repository: str, data_dir: Path) -> Path:
    """Fetch ``ORG/NAME`` at the revision that the data folder notes (:mod:`datasets.hub_repository`), whose files these are.

    Nothing is done where there is a copy. What goes wrong is a :class:`UserError`; what has arrived stays for the next time.
    """
    copy = hub_copy(repository, data_dir)
    with locked(ensure_folder(copy.parent) / copy.name):
        if not copy.exists():
            arriving = copy.with_name(f".{copy.name}.part")
            _download(repository, data_dir, arriving)
            arriving.rename(copy)
    return copy


def _download(repository: str, data_dir: Path, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    from datasets.hub_repository import open_repository

    noted = open_repository(repository, data_dir)
    try:
        snapshot_download(repository, repo_type="dataset", revision=noted.revision, allow_patterns=list(noted.files), local_dir=folder)
    except Exception as error:  # of the connection, the hub's cache and the disk: their types differ between versions of the library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")
        raise UserError(f"Cannot fetch '{repository}' from the Hugging Face hub ({reason}); run again to go on.") from error
