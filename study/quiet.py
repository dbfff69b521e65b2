"""A runtime that prints nothing: a study tells one line for each cell."""

from __future__ import annotations

from engine.runtime import Runtime, start


class QuietRuntime(Runtime):
    """One that prints nothing."""

    def say(self, *words: object) -> None:
        """Print nothing."""


def quiet(runtime: Runtime) -> QuietRuntime:
    """The same runtime, quiet."""
    return QuietRuntime(runtime.accelerator, runtime.precision, runtime.seed)


def fresh(runtime: Runtime, seed: int) -> QuietRuntime:
    """A quiet runtime of its own for each training, as a command would start it: nothing of the one before stays in the accelerator."""
    device = "cpu" if runtime.device.type == "cpu" else "auto"
    return quiet(start(device, runtime.precision, seed))
