"""What a user may choose about a merge. Every method reads some of these, and its table entry says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from common.arguments import MOST_RATE
from common.errors import UserError

MergeFunc = Literal["sum", "mean", "max"]
Scope = Literal["model", "tensor"]
Solver = Literal["adam", "exact"]
MaskType = Literal["continuous", "discrete"]


@dataclass(frozen=True)
class MergeOptions:
    """The options of all methods; the defaults are the published ones. Raises UserError for a value out of range."""

    scaling: float | None = None  # of the merged task vector, θ = θ_0 + scaling * τ; None: the method's default; below 0: forget
    seed: int = 0  # decides whatever is drawn
    device: str = "cpu"  # where methods that work on whole matrices do so

    # weighted average: one weight a model; whether they are divided by their sum
    weights: tuple[float, ...] | None = None
    normalize: bool = True
    # TIES: the fraction of each task vector that is kept, over the whole scope; how what has the elected sign is joined
    density: float = 0.2
    merge_func: MergeFunc = "sum"
    scope: Scope = "model"
    # DARE: the fraction that is dropped; whether the rest is divided by 1 - drop_rate
    drop_rate: float = 0.5
    rescale: bool = True
    # SLERP: from 0, the first model, to 1, the second
    t: float = 0.5
    # Iso-CTS: the share of directions that all tasks have in common
    common_space_fraction: float = 0.8
    # WUDI: by steps of Adam, or exactly
    solver: Solver = "adam"
    iterations: int = 400
    learning_rate: float = 1e-5
    # TALL masks: λ; how many tasks must use a weight that consensus keeps
    mask_threshold: float = 0.6
    min_tasks: int = 2

    # Fisher: answers drawn for each image, 0: all, weighted; whether each model's is divided by its norm; what is added to it
    fisher_samples: int = 0
    normalize_fisher: bool = True
    minimal_fisher: float = 1e-6
    # RegMean: what off-diagonal entries of the Gram matrices are multiplied by
    non_diagonal_ratio: float = 0.95
    # AdaMerging and Concrete: steps and Adam's rate (None: the method's own), images of each task in a step; stopping at a plateau
    # of so many steps, 0: never; λ within [0, 1]; task vectors in half the memory, approximately
    adapt_steps: int = 1000
    adapt_lr: float | None = None
    adapt_batch_size: int = 16
    plateau: int = 0
    clamp: bool = False
    bf16_task_vectors: bool = False
    # ... a file of what was learnt before, to merge by without images; where to keep what is learnt
    weights_file: str | None = None
    save_weights: str | None = None
    # Concrete: steps of the mask (None: the method's own), how far it is from binary, which mask merges, the rate of the inner step
    mask_steps: int | None = None
    temperature: float = 0.5
    mask_type: MaskType = "continuous"
    inner_lr: float = 1.0
    # WEMoE: layers of a router; one mean routing for a batch, as released; fractions of the MLPs' task vectors and of the routers that
    # are set to 0; one router for all blocks, and how many numbers tell it the block. None: the method's own (merging/wemoe/options.py)
    router_layers: int = 2
    batch_reduce: bool = False
    prune_ratio: float | None = None
    gate_prune_ratio: float | None = None
    shared_gate: bool | None = None
    position_dim: int = 0
    # Fisher, RegMean++, Concrete: as the released code has it, where that differs
    as_released: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"--{_dashed(name)} is '{value}'; it must be one of {', '.join(known)}.")
        for name, (holds, must_be) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and holds(value)):
                raise UserError(f"--{_dashed(name)} is {value:g}; it must be {must_be}.")


_CHOICES = {"merge_func": get_args(MergeFunc), "scope": get_args(Scope), "solver": get_args(Solver), "mask_type": get_args(MaskType)}

_Range = tuple[Callable[[float], bool], str]
_FRACTION: _Range = (lambda value: 0 <= value <= 1, "from 0 to 1")
_ABOVE_0: _Range = (lambda value: value > 0, "a number above 0")
_RATE: _Range = (lambda value: 0 < value <= MOST_RATE, f"above 0 and at most {MOST_RATE:g}")
_FROM_0: _Range = (lambda value: value >= 0, "a number, at least 0")
_FROM_1: _Range = (lambda value: value >= 1, "at least 1")

_RANGES: dict[str, _Range] = {
    "scaling": (isfinite, "a finite number"),
    "density": (lambda value: 0 < value <= 1, "above 0 and at most 1, the fraction of each task vector that is kept"),
    "drop_rate": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "t": (lambda value: 0 <= value <= 1, "from 0 (the first model) to 1 (the second)"),
    **dict.fromkeys(("common_space_fraction", "non_diagonal_ratio", "prune_ratio", "gate_prune_ratio"), _FRACTION),
    **dict.fromkeys(("minimal_fisher", "temperature"), _ABOVE_0),
    **dict.fromkeys(("learning_rate", "adapt_lr", "inner_lr"), _RATE),
    **dict.fromkeys(("iterations", "mask_threshold", "min_tasks", "fisher_samples", "adapt_steps", "mask_steps", "plateau"), _FROM_0),
    "adapt_batch_size": _FROM_1,
}


def _dashed(name: str) -> str:
    return name.replace("_", "-")
