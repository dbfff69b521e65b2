"""The objectives by name, what the command line must know of them, and how one is made. Importing this module does not import torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewshot.adapter_options import AdapterFit

if TYPE_CHECKING:
    from fewshot.objective import Objective, Setting


@dataclass(frozen=True)
class Entry:
    """An objective: its class as ``module:Class``, and its published hyper-parameters, the defaults of flags that are not typed.

    ``flags`` names a module without torch that has ``add_arguments(parser)`` and ``options_of(args)``, for flags of its own.
    """

    name: str
    description: str
    place: str
    fit: AdapterFit = field(default_factory=AdapterFit)
    adapter_scale: float = 0.03
    adapter_dropout: float = 0.1
    flags: str | None = None

    def make(self, setting: Setting) -> Objective:
        """The objective in a setting."""
        return _found(self.place)(setting)  # type: ignore[no-any-return]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The objective's own flags."""
        if self.flags:
            _found(f"{self.flags}:add_arguments")(parser)

    def options_of(self, args: argparse.Namespace) -> Any:
        """What its own flags say; None where it has none."""
        return _found(f"{self.flags}:options_of")(args) if self.flags else None


def _found(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


OBJECTIVES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "supervised",
            "cross-entropy of a linear layer on the features, which is then discarded",
            "fewshot.objectives.supervised:Supervised",
        ),
        Entry(
            "overlap",
            "the overlap of the similarities of pairs of the same class and of different classes, made differentiable",
            "fewshot.objectives.overlap:SoftOverlap",
            flags="fewshot.objectives.overlap_flags",
        ),
        Entry(
            "dino",
            "self-distillation without labels: a moving average of the student teaches it over many crops",
            "fewshot.objectives.dino:Dino",
            fit=AdapterFit(epochs=100, batch_size=32, lr=5e-4, wd=0.04, schedule="cosine"),
            adapter_scale=0.1,
            adapter_dropout=0.0,
            flags="fewshot.dino.flags",
        ),
    )
}
