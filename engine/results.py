"""Results: one JSON per finished piece of work, collected in a CSV table that only ever grows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import append_rows, check_appendable, slug, write_json


def details_folder(table: Path) -> Path:
    """Where the JSON files of a table's rows lie: ``results.csv`` has ``results/``, ``results`` has ``results-details/``."""
    return table.with_suffix("") if table.suffix else table.with_name(f"{table.name}-details")


def check_recordable(table: Path) -> None:
    """A :class:`UserError` now rather than after the work, when :func:`record` could not write."""
    check_appendable(table)
    folder = details_folder(table)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file; the details of the rows of '{table}' need a folder of that name.")


def record(table: Path, row: Mapping[str, Any], details: Mapping[str, Any], name: str) -> Path:
    """Write ``row`` with ``details`` to a JSON of its own beside ``table``, and add ``row`` to ``table``.

    The JSON lies in :func:`details_folder`; its name is ``name`` and a hash of its content, so none is
    ever overwritten. Returns its path.
    """
    content = {**row, **details}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    path = details_folder(table) / f"{slug(name)}-{digest}.json"
    write_json(path, content)
    append_rows(table, [row])
    return path
