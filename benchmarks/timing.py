"""Timing two ways of doing the same, fairly."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds_alternating(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way. They run in turn, so that a busy machine slows them alike; a first run is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # pays for caches and threads
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
