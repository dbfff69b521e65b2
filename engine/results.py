"""Results: one JSON per finished piece of work, collected in a CSV table that only ever grows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import append_rows, slug, write_json


def record(table: Path, row: Mapping[str, Any], details: Mapping[str, Any], name: str) -> Path:
    """Write ``row`` with ``details`` to a JSON of its own beside ``table``, and add ``row`` to ``table``.

    The JSON lies in the folder ``<table without suffix>/``; its name is ``name`` and a hash of its content, so none is
    ever overwritten. Returns its path.
    """
    content = {**row, **details}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    path = table.with_suffix("") / f"{slug(name)}-{digest}.json"
    write_json(path, content)
    append_rows(table, [row])
    return path
