"""Learning-rate schedules as functions of the step, so that a resumed run needs no state of them."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "linear")


def learning_rate(step: int, steps: int, *, peak: float, schedule: str = "constant", warmup: int = 0) -> float:
    """The learning rate of optimizer step ``step`` (from 0) out of ``steps``.

    Rises linearly over the first ``warmup`` steps to ``peak``; then stays, or falls to 0 along half a cosine or a line.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    factor = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress}
    return peak * factor[schedule]
