"""Data sets on the Hugging Face hub: which files they have, at which revision, and which of them are a split's.

A set is read from a local copy where there is one (``hf download ORG/NAME --repo-type dataset --local-dir DATA_DIR/hub/ORG/NAME``)::

    DATA_DIR/hub/ORG/NAME/ or DATA_DIR/hub/ORG__NAME/     the repository's files

and else from the hub, into Hugging Face's own cache (HF_HOME). Sets on the hub change, so the first use notes the commit and its
files in ``DATA_DIR/hub_revisions.json``, and every later one reads that commit. To work with another one, or with a colleague's, edit
or copy that file. A data set's name has no place for it: the name is what results are told apart by, and should stay readable.

Repositories without parquet or tar files (zip archives, scripts) are read from the parquet files that the hub makes of them, on
its branch ``refs/convert/parquet``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError, unknown_name
from common.files import ensure_folder, locked, read_json, write_json

LOCK = "hub_revisions.json"
CONVERTED = "refs/convert/parquet"
DATA = (".parquet", ".tar")
NOTES = ("README.md", "classnames.txt", "zeroshot_classification_templates.txt")

Layout = dict[str, dict[str, list[str]]]  # configuration: {split: files}
T = TypeVar("T")

_FILE = re.compile(r"(?:(?P<folder>.+)/)?(?P<stem>[^/]+?)(?:-\d{5}-of-(?P<count>\d{5})(?:-[0-9a-f]{16})?)?\.(?:parquet|tar)")


@dataclass(frozen=True)
class HubRepository:
    """A data set ``ORG/NAME``: its parquet and tar files and its notes, in a local folder or at a revision on the hub."""

    name: str
    files: tuple[str, ...]
    folder: Path | None = None  # of a local copy
    revision: str | None = None  # else the commit

    def fetch(self, file: str) -> Path:
        """Where a file lies, after downloading it when it is not there."""
        if self.folder is not None:
            return self.folder / file
        from huggingface_hub import hf_hub_download

        return _ask(self.name, lambda: Path(hf_hub_download(self.name, file, repo_type="dataset", revision=self.revision)))

    def note(self, file: str) -> Path | None:
        """The same for a file of :data:`NOTES`, which need not be there."""
        return self.fetch(file) if file in self.files else None

    def split_files(self, split: str, config: str | None = None) -> list[str]:
        """The files of a split; a :class:`UserError` names the splits that there are."""
        splits = self.splits(config)
        if split not in splits:
            raise UserError(f"'{self.name}' on the hub has no split '{split}'; it has: {', '.join(splits)}.")
        return _complete(self.name, splits[split])

    def splits(self, config: str | None = None) -> dict[str, list[str]]:
        """The files of each split of a configuration; None is the only one, or the default."""
        layout = self._layout()
        if config is not None and config not in layout:
            raise unknown_name(f"configuration of '{self.name}'", config, layout)
        config = config or self._default(layout)
        if config is None:
            several = f"several configurations: {', '.join(layout)}"
            raise UserError(f"'{self.name}' on the hub has {several}; name one, as in hub:{self.name}/{next(iter(layout))}.")
        return layout[config]

    def _default(self, layout: Layout) -> str | None:
        """The configuration to take when none is named: the only one, or what the hub takes."""
        marked = [str(config.get("config_name")) for config in self.card().get("configs") or () if config.get("default")]
        usual = list(layout) if len(layout) == 1 else [*marked, "default"]
        return next((config for config in usual if config in layout), None)

    def card(self) -> dict[str, Any]:
        """The metadata at the head of README.md; empty without any."""
        readme = self.note("README.md")
        if readme is None:
            return {}
        from huggingface_hub.repocard import metadata_load
        from yaml import YAMLError

        try:
            return metadata_load(readme) or {}
        except (ValueError, YAMLError) as error:
            raise self._unreadable_card() from error

    def _unreadable_card(self) -> UserError:
        return UserError(f"The metadata at the head of '{self.note('README.md')}' are not readable; fetch it again.")

    def _layout(self) -> Layout:
        data = [file for file in self.files if file.endswith(DATA)]
        try:
            layout = _said(self.card(), data) or _named(data)
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unreadable_card() from error
        if not layout:
            raise UserError(f"'{self.name}' has no parquet or tar files of images on the hub; download it and use 'imagefolder:PATH'.")
        return layout


def open_repository(name: str, data_dir: Path) -> HubRepository:
    """The data set ``ORG/NAME``: its local copy, else its noted revision, else the newest, which is noted."""
    for copy in (name, name.replace("/", "__")):
        if (folder := data_dir.expanduser() / "hub" / copy).is_dir():
            return HubRepository(name, _wanted(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))), folder=folder)
    noted = _noted(name, data_dir.expanduser() / LOCK)
    return HubRepository(name, tuple(noted["files"]), revision=noted["revision"])


def _noted(name: str, path: Path) -> dict[str, Any]:
    """Revision and files of a data set in the lock file, where they are put on first use."""
    if name not in (known := read_json(path) if path.exists() else {}):
        ensure_folder(path.parent)
        with locked(path):
            known = read_json(path) if path.exists() else {}  # another process may have been first
            if name not in known:
                known[name] = _newest(name)
                write_json(path, known)
    noted = known[name]
    if not (isinstance(noted, dict) and isinstance(noted.get("revision"), str) and isinstance(noted.get("files"), list)):
        raise UserError(f"'{path}' does not say the revision and the files of '{name}'; remove its entry to have it written anew.")
    return noted


def _newest(name: str) -> dict[str, Any]:
    from huggingface_hub import HfApi

    for branch in (None, CONVERTED):
        info = _ask(name, lambda branch=branch: HfApi().dataset_info(name, revision=branch))  # type: ignore[misc]
        files = _wanted(sorted(sibling.rfilename for sibling in info.siblings or ()))
        if any(file.endswith(DATA) for file in files):
            break
    return {"revision": info.sha, "files": list(files)}


def _wanted(files: Iterable[str]) -> tuple[str, ...]:
    return tuple(file for file in files if (file.endswith(DATA) and not file.startswith(".")) or file in NOTES)


def _ask(name: str, call: Callable[[], T]) -> T:
    """What the hub answers; every refusal is a :class:`UserError`."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    local = f"a copy in 'hub/{name}' below --data-dir works too"
    try:
        return call()
    except GatedRepoError as error:
        raise UserError(f"'{name}' is gated: accept its terms on the hub and run 'hf auth login'; {local}.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"There is no public data set '{name}' on the Hugging Face hub; {local}.") from error
    except RevisionNotFoundError as error:
        raise UserError(f"'{name}' has no parquet or tar files of images on the hub; {local}.") from error
    except Exception as error:  # of the connection, the hub's cache and the disk: their types differ between versions of the library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")
        raise UserError(f"Cannot fetch '{name}' from the Hugging Face hub ({reason}); {local}.") from error


def _said(card: dict[str, Any], data: list[str]) -> Layout:
    """The layout as the card has it: ``configs: [{config_name, default, data_files: [{split, path}]}]``, ``path`` with wildcards."""
    layout: Layout = {}
    for config in card.get("configs") or ():
        said = config.get("data_files") or ()
        parts = [{"split": "train", "path": said}] if isinstance(said, str) else said
        parts = [part if isinstance(part, dict) else {"split": "train", "path": part} for part in parts]
        splits = {str(part.get("split", "train")): files for part in parts if (files := _matching(part.get("path"), data))}
        if splits:
            layout[str(config.get("config_name"))] = splits
    return layout


def _matching(patterns: str | list[str] | None, data: list[str]) -> list[str]:
    from huggingface_hub.utils import filter_repo_objects

    return list(filter_repo_objects(data, allow_patterns=patterns)) if patterns else []


def _named(data: list[str]) -> Layout:
    """The layout by the names: ``CONFIG/SPLIT-00000-of-00002.parquet`` (the folder ``data`` is none) or ``CONFIG/SPLIT/0000.parquet``."""
    layout: Layout = {}
    for file in data:
        found = _FILE.fullmatch(file)
        if found is None:
            continue
        folder, split = found["folder"] or "", found["stem"]
        if split.isdigit() or split.startswith("part"):
            folder, _, split = folder.rpartition("/")
        layout.setdefault("default" if folder in ("", "data") else folder, {}).setdefault(split or "train", []).append(file)
    return layout


def _complete(name: str, files: list[str]) -> list[str]:
    """The files, after counting those that say ``-of-N``: a local copy may be a part."""
    counts = {int(found["count"]) for file in files if (found := _FILE.fullmatch(file)) and found["count"]}
    if len(counts) == 1 and counts != {len(files)}:
        raise UserError(f"'{name}' has {len(files)} of the {counts.pop()} files of '{files[0]}'; fetch the others too.")
    return files
