"""What the figures of a study share beyond common.figures: the points of tasks and the titles of panels."""

from __future__ import annotations

from typing import Any

from common.figures import PALETTE, short

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")  # 7 and 11 have no common factor: 77 pairs differ


def look(index: int) -> dict[str, Any]:
    """The point of the index-th task, the same in every figure; a star is drawn larger, since it is thin."""
    marker = MARKERS[index % len(MARKERS)]
    return {
        "ls": "none",
        "marker": marker,
        "ms": 6 if marker == "*" else 4,
        "color": PALETTE[index % len(PALETTE)],
        "mec": "white",
        "mew": 0.4,
    }


def title_of(model: str, tuning: str) -> str:
    """What stands above a panel of one model and tuning."""
    return f"{short(model)}, {short(tuning, 18)}"
