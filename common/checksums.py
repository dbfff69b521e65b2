"""The checksum in the metadata of a safetensors file, or of what stands beside a table of numbers: of the tensors, and of the metadata.

A format that has none of its own would take a flipped bit for another number. The value under :data:`KEY` is two hexadecimal
SHA-256, ``TENSORS+METADATA``. Files of earlier versions have the first alone; files from elsewhere have none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError

KEY = "tensors_sha256"  # never shown to callers, so what is written is what is read
_SEAL = re.compile(r"[0-9a-f]{24,}\+[0-9a-f]{4,}|[0-9a-f]{4,}\+[0-9a-f]{24,}|[0-9a-f]{64}\+|\+[0-9a-f]{64}")  # or what damage leaves of one
_EARLIER = re.compile(r"[0-9a-f]{64}")


def sealed(metadata: Mapping[str, str], tensors_sha256: str) -> dict[str, str]:
    """``metadata`` with the checksum of the tensors and its own."""
    return {**metadata, KEY: f"{tensors_sha256}+{_digest(metadata)}"}


def unsealed(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """(what :func:`sealed` was given, the SHA-256 that the tensors must have), the latter None in files from elsewhere.

    Raises :class:`UserError` that names ``path`` when the metadata are not those that were sealed.
    """
    rest = dict(metadata)
    seal = rest.pop(KEY, None)
    if seal is None and not any(_SEAL.search(text) for pair in rest.items() for text in pair):  # else it is the key that is damaged
        return rest, None
    if seal is not None and _EARLIER.fullmatch(seal):
        return rest, seal
    tensors, _, own = (seal or "").partition("+")
    if own != _digest(rest):
        raise UserError(f"'{path}' is damaged or was edited: its metadata do not have the checksum beside them; write or fetch it again.")
    return rest, tensors


def _digest(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode()).hexdigest()
