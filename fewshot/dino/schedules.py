"""The schedules of self-distillation as functions of the step or the epoch, so that a resumed run needs no state of them.

Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers (ICCV 2021), and its released code for the ends of
the ranges. A warm-up that is longer than the run is cut by its end; there it was an error.
"""

from __future__ import annotations

import math


def warmed_cosine(step: int, steps: int, *, start: float, end: float, warmup: int = 0) -> float:
    """The value in step ``step`` (from 0) of ``steps``.

    Over the first W = ``warmup`` steps it rises linearly from 0 to ``start``, both reached: start * step / (W - 1), and 0 where W = 1.
    Then end + (start - end) (1 + cos(pi (step - W) / (steps - W))) / 2.

    >>> [warmed_cosine(step, 5, start=1.0, end=0.0, warmup=3) for step in range(5)]
    [0.0, 0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return start * _along(step, warmup)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def teacher_temperature(epoch: int, *, start: float, end: float, warmup: int) -> float:
    """The teacher's temperature in ``epoch`` (from 0): linear from ``start`` to ``end`` over ``warmup`` epochs, then ``end``.

    >>> [round(teacher_temperature(epoch, start=0.04, end=0.07, warmup=3), 6) for epoch in range(4)]
    [0.04, 0.055, 0.07, 0.07]
    """
    return start + (end - start) * _along(epoch, warmup) if epoch < warmup else end


def _along(place: int, places: int) -> float:
    """Which part of the way from 0 to 1 ``place`` is, of ``places`` with both ends."""
    return place / (places - 1) if places > 1 else 0.0
