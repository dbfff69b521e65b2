"""What a run has written, without what no two runs have in common: times of day, durations, memory, and hashes of these."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from common.files import LOCK, is_temporary
from models.tensors import sha256_of_tensors
from tests.helpers import files_below

OF_THE_MACHINE = ("created", "peak_memory_mib", "images_per_second", "samples_per_second", "overwrite")
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00|(?<=[0-9a-f]{64})\+[0-9a-f]{64}")  # and the hash of a header that tells it
OTHERS = r"\..*\.lock|.*\.part(\.json)?|run-\d+\.json|pictures\.tar\.gz"

Results = dict[str, set[str]]


def written(folder: Path) -> Results:
    """The contents of each file, by its name; files whose names end in a hash of when they were made are taken together.

    Raises when one is not whole. Left out are locks, what is in the making (see :func:`left_over`), what is left of a broken download,
    the account that each attempt at an inversion gives of itself, and an archive that was unpacked but not yet removed when the kill
    came: it cannot be told from one that is to be kept.
    """
    found: Results = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(is_temporary(parent) for parent in path.parents) and not re.fullmatch(OTHERS, path.name):
            name = re.sub(r"-[0-9a-f]{8}(?=\.json|\.skipped)", "", str(path.relative_to(folder)))
            found.setdefault(name, set()).add(content(path).replace(str(folder), "FOLDER"))
    return found


def left_over(folder: Path) -> list[str]:
    """What killed runs have left of files in the making; a folder with nothing but the lock is what is left of a file that is made."""
    made = {LOCK}
    found = [path for path in sorted(folder.rglob(".*.tmp")) if is_temporary(path)]
    return [str(path.relative_to(folder)) for path in found if {each.name for each in path.iterdir()} - made]


def content(path: Path) -> str:
    """What is the same in every run."""
    if path.suffix == ".json":
        return json.dumps(timeless(json.loads(path.read_text())), sort_keys=True)
    if path.suffix == ".csv":
        rows = {json.dumps(timeless(row), sort_keys=True) for row in csv.DictReader(io.StringIO(path.read_text(), newline=""))}
        return "\n".join(sorted(rows))
    if path.suffix == ".safetensors":
        return tensors_and_header(path)
    return TIME.sub(b"", path.read_bytes()).hex()


def timeless(value: Any) -> Any:
    """A value of a JSON file without what depends on time."""
    if isinstance(value, dict):
        return {key: timeless(of) for key, of in value.items() if not ("second" in key or key in OF_THE_MACHINE or key.endswith("sha256"))}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below ``folder``, without the time that headers say they were made at, and what depends on it."""
    return {name: TIME.sub(b"", of) for name, of in files_below(folder).items()}


def tensors_and_header(path: Path) -> str:
    """A hash of the tensors, and the header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata() or {})
    header = {key: json.loads(text) if text.startswith(("{", "[")) else text for key, text in header.items()}
    return json.dumps([sha256_of_tensors(tensors), timeless(header)], sort_keys=True)
