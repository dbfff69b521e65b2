"""What a cell that was worked on has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """The results of a cell, what its line of progress says of them, and what its provenance says beyond that of any cell."""

    results: dict[str, Any]
    told: str
    n_images: int = 0  # that went through the encoder
    batch_size: int | None = None
    seed: int = 0
