"""TensorBoard and Weights & Biases, through Accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from engine.runtime import Runtime

PROJECT = "clipscope"


def check_tracker(name: str | None) -> None:
    """A :class:`UserError` when the tracker called ``name`` is not installed, which accelerate would pass over in silence."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UserError(f"--log-with {name} needs the package of that name; install it with 'pip install {name}'.")


def start_tracker(runtime: Runtime, run: str, settings: Mapping[str, Any]) -> None:
    """Open the runtime's tracker, if it has one, for the run called ``run``: in TensorBoard each run is a folder of its own."""
    plain = {key: value if isinstance(value, (int, float, bool)) else str(value) for key, value in settings.items()}
    names = {str(getattr(name, "value", name)) for name in runtime.accelerator.log_with}
    project = PROJECT if "wandb" in names else run
    runtime.accelerator.init_trackers(project, config=plain, init_kwargs={"wandb": {"name": run}})
