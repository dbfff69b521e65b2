"""TensorBoard and Weights & Biases, through Accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from engine.runtime import Runtime


def start_trackers(runtime: Runtime, name: str | None, settings: Mapping[str, Any]) -> None:
    """Open the tracker called ``name``, if any, with the run's settings."""
    if name is None:
        return
    if importlib.util.find_spec(name) is None:
        raise UserError(f"--log-with {name} needs the package of that name; install it with 'pip install {name}'.")
    plain = {key: value if isinstance(value, (int, float, bool)) else str(value) for key, value in settings.items()}
    runtime.accelerator.init_trackers("clipscope", config=plain)

