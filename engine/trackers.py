"""TensorBoard and Weights & Biases, through Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.runtime import Runtime

PROJECT = "clipscope"


def start_tracker(runtime: Runtime, run: str, settings: Mapping[str, Any]) -> None:
    """Open the runtime's tracker, if it has one, for the run called ``run``: in TensorBoard each run is a folder of its own."""
    plain = {key: value if isinstance(value, (int, float, bool)) else str(value) for key, value in settings.items()}
    names = {str(getattr(name, "value", name)) for name in runtime.accelerator.log_with}
    project = PROJECT if "wandb" in names else run
    runtime.accelerator.init_trackers(project, config=plain, init_kwargs={"wandb": {"name": run}})
