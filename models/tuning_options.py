"""The tunings' names and hyper-parameters. Importing this module does not import torch, so command lines can list them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from common.errors import UserError, unknown_name
from common.files import exact

# Which fields of TuningOptions each tuning reads, in the order of its tag.
TUNING_OPTIONS: dict[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("rank", "lora_scale", "lora_mlp"),
    "l-lora": ("rank", "lora_scale", "lora_mlp"),
    "bias": ("train_blocks",),
    "attention": ("train_blocks",),
    "adapter": ("reduction", "adapter_ratio"),
    "parallel-adapter": ("bottleneck", "adapter_scale", "adapter_dropout"),
    "probe": ("probe_init",),
}
# Those that came later. Files and names say them only where they are not the default, so what was written before keeps its meaning.
LATER_OPTIONS: dict[str, tuple[str, ...]] = {
    "full": ("towers",),
    "lora": ("lora_targets", "towers"),
    "l-lora": ("lora_targets", "towers"),
    "bias": ("towers",),
    "attention": ("towers",),
}
TUNING_NAMES: tuple[str, ...] = tuple(TUNING_OPTIONS)
PROBE_INITS = ("random", "text")
TOWERS = ("both", "vision", "text")
ATTENTION_MAPS = ("q", "k", "v", "out")  # of an attention, the ones that LoRA can update


@dataclass(frozen=True)
class TuningOptions:
    """Every hyper-parameter of every tuning, with the published defaults; :func:`readers_of` says who reads which.

    Raises :class:`UserError` for a value that no tuning can use.
    """

    rank: int = 16  # of each LoRA update
    lora_scale: float = 0.2  # what a LoRA update is multiplied by: alpha / rank
    lora_mlp: bool = False  # LoRA in the MLPs too
    lora_targets: str = "q,v"  # what LoRA updates: q, k, v, out, mlp, in any order; the last becomes lora_mlp
    towers: str = "both"  # or "vision", "text": the one that trains; projections and logit scale then do not
    train_blocks: int = 12  # the last blocks of each tower, for bias and attention
    reduction: int = 4  # embedding width / bottleneck width of the CLIP-Adapter
    adapter_ratio: float = 0.2  # share of the adapter's output in the embedding
    bottleneck: int = 64  # width of a parallel adapter's middle
    adapter_scale: float = 0.03  # what a parallel adapter's output is multiplied by
    adapter_dropout: float = 0.1  # of a parallel adapter's middle, in train_adapter.py only
    probe_init: str = "random"  # or "text": the class text embeddings
    seed: int = 0  # of whatever is drawn at the start

    def __post_init__(self) -> None:
        for name in ("rank", "train_blocks", "reduction", "bottleneck"):
            if getattr(self, name) < 1:
                raise UserError(f"{flag(name)} must be at least 1, not {getattr(self, name)}.")
        for name in ("lora_scale", "adapter_scale"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{flag(name)} must be a finite number, not {getattr(self, name)}.")
        if not 0 <= self.adapter_dropout < 1:
            raise UserError(f"--adapter-dropout must be at least 0 and less than 1, not {self.adapter_dropout:g}.")
        if not 0 <= self.adapter_ratio <= 1:
            raise UserError(f"--adapter-ratio must lie between 0 and 1, not {self.adapter_ratio:g}.")
        if self.probe_init not in PROBE_INITS:
            raise unknown_name("probe initialisation", self.probe_init, PROBE_INITS)
        if self.towers not in TOWERS:
            raise unknown_name("choice of towers", self.towers, TOWERS)
        self._order_targets()

    def _order_targets(self) -> None:
        """One spelling of what LoRA updates: q,k,v,out in this order, and the MLPs by ``lora_mlp``."""
        targets = [target.strip() for target in self.lora_targets.split(",") if target.strip()]
        for target in targets:
            if target not in (*ATTENTION_MAPS, "mlp"):
                raise unknown_name("LoRA target", target, (*ATTENTION_MAPS, "mlp"))
        object.__setattr__(self, "lora_mlp", self.lora_mlp or "mlp" in targets)
        object.__setattr__(self, "lora_targets", ",".join(target for target in ATTENTION_MAPS if target in targets))
        if not self.targets:
            raise UserError("--lora-targets names nothing to update; give some of q,k,v,out,mlp.")

    @property
    def targets(self) -> tuple[str, ...]:
        """What LoRA updates, the MLPs included: some of q, k, v, out, mlp."""
        return (*filter(None, self.lora_targets.split(",")), *(("mlp",) if self.lora_mlp else ()))

    def read_by(self, tuning: str) -> dict[str, int | float | bool | str]:
        """The hyper-parameters that ``tuning`` reads, by name; those that came later only where they are not the default."""
        values = {name: getattr(self, name) for name in all_options_of(tuning)}
        return {name: value for name, value in values.items() if name in TUNING_OPTIONS[tuning] or value != _DEFAULTS[name]}


_DEFAULTS = {each.name: each.default for each in fields(TuningOptions)}


def options_of(tuning: str) -> tuple[str, ...]:
    """The names of the hyper-parameters that ``tuning`` always says; a :class:`UserError` when there is no such tuning."""
    if tuning not in TUNING_OPTIONS:
        raise unknown_name("tuning", tuning, TUNING_OPTIONS)
    return TUNING_OPTIONS[tuning]


def all_options_of(tuning: str) -> tuple[str, ...]:
    """The names of all hyper-parameters that ``tuning`` reads, those that came later at the end; raises as :func:`options_of`."""
    return (*options_of(tuning), *LATER_OPTIONS.get(tuning, ()))


def readers_of(option: str) -> list[str]:
    """The tunings that read a hyper-parameter."""
    return [tuning for tuning in TUNING_NAMES if option in all_options_of(tuning)]


def flag(option: str) -> str:
    """The command line's spelling of a hyper-parameter: ``lora_scale`` is ``--lora-scale``."""
    return "--" + option.replace("_", "-")


def tuning_tag(tuning: str, options: TuningOptions) -> str:
    """A short name of a tuning with its hyper-parameters, for file names.

    >>> tuning_tag("lora", TuningOptions(rank=4))
    'lora-r4-s0.2'
    """
    read = options.read_by(tuning)
    return "-".join([tuning, *(part for name, value in read.items() if (part := _TAG_PARTS[name](value)))])


_TAG_PARTS: dict[str, Callable[[Any], str]] = {
    "rank": "r{}".format,
    "lora_scale": lambda value: f"s{exact(value)}",
    "lora_mlp": lambda value: "mlp" if value else "",
    "lora_targets": lambda value: value.replace(",", "") or "only",
    "towers": str,
    "train_blocks": "b{}".format,
    "reduction": "r{}".format,
    "adapter_ratio": lambda value: f"a{exact(value)}",
    "bottleneck": "b{}".format,
    "adapter_scale": lambda value: f"s{exact(value)}",
    "adapter_dropout": lambda value: f"d{exact(value)}",
    "probe_init": lambda value: "" if value == "random" else value,
}
