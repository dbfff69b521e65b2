"""The tunings' names and hyper-parameters. Importing this module does not import torch, so command lines can list them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.errors import UserError, unknown_name
from common.files import exact

# Which fields of TuningOptions each tuning reads, in the order of its tag.
TUNING_OPTIONS: dict[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("rank", "lora_scale", "lora_mlp"),
    "bias": ("train_blocks",),
    "attention": ("train_blocks",),
    "adapter": ("reduction", "adapter_ratio"),
    "probe": ("probe_init",),
}
TUNING_NAMES: tuple[str, ...] = tuple(TUNING_OPTIONS)
PROBE_INITS = ("random", "text")


@dataclass(frozen=True)
class TuningOptions:
    """Every hyper-parameter of every tuning, with the published defaults; :data:`TUNING_OPTIONS` says who reads which.

    Raises :class:`UserError` for a value that no tuning can use.
    """

    rank: int = 16  # of each LoRA update
    lora_scale: float = 0.2  # what a LoRA update is multiplied by
    lora_mlp: bool = False  # LoRA in the MLPs too
    train_blocks: int = 12  # the last blocks of each tower, for bias and attention
    reduction: int = 4  # embedding width / bottleneck width of the CLIP-Adapter
    adapter_ratio: float = 0.2  # share of the adapter's output in the embedding
    probe_init: str = "random"  # or "text": the class text embeddings
    seed: int = 0  # of whatever is drawn at the start

    def __post_init__(self) -> None:
        for name in ("rank", "train_blocks", "reduction"):
            if getattr(self, name) < 1:
                raise UserError(f"{flag(name)} must be at least 1, not {getattr(self, name)}.")
        if not math.isfinite(self.lora_scale):
            raise UserError(f"--lora-scale must be a finite number, not {self.lora_scale}.")
        if not 0 <= self.adapter_ratio <= 1:
            raise UserError(f"--adapter-ratio must lie between 0 and 1, not {self.adapter_ratio:g}.")
        if self.probe_init not in PROBE_INITS:
            raise unknown_name("probe initialisation", self.probe_init, PROBE_INITS)

    def read_by(self, tuning: str) -> dict[str, int | float | bool | str]:
        """The hyper-parameters that ``tuning`` reads, by name."""
        return {name: getattr(self, name) for name in options_of(tuning)}


def options_of(tuning: str) -> tuple[str, ...]:
    """The names of the hyper-parameters that ``tuning`` reads; a :class:`UserError` when there is no such tuning."""
    if tuning not in TUNING_OPTIONS:
        raise unknown_name("tuning", tuning, TUNING_OPTIONS)
    return TUNING_OPTIONS[tuning]


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


_TAG_PARTS = {
    "rank": "r{}".format,
    "lora_scale": lambda value: f"s{exact(value)}",
    "lora_mlp": lambda value: "mlp" if value else "",
    "train_blocks": "b{}".format,
    "reduction": "r{}".format,
    "adapter_ratio": lambda value: f"a{exact(value)}",
    "probe_init": lambda value: "" if value == "random" else value,
}
