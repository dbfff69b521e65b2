"""METHODS: every few-shot method. The command line, the documentation and the tests read it.

Each entry stands at the end of the file of its method.
"""

from __future__ import annotations

from fewshot.method import Method
from fewshot.methods import ape, ape_t, clip_adapter, clip_lora, linear_probe, tip_adapter, tip_adapter_f, tip_x, zero_shot

_ALL = (
    zero_shot.METHOD,
    *tip_adapter.METHODS,
    *tip_x.METHODS,
    *ape.METHODS,
    *tip_adapter_f.METHODS,
    *ape_t.METHODS,
    linear_probe.METHOD,
    clip_adapter.METHOD,
    clip_lora.METHOD,
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

__all__ = ["METHODS", "Method"]
