"""What a user may choose about a routed encoder. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import UserError

TRAINING = ("adapt_steps", "adapt_lr", "adapt_batch_size")  # these say how the routers are trained, the others what the encoder is
HIDDEN_LAYERS = (0, 1, 2)


@dataclass(frozen=True)
class WemoeOptions:
    """The options of WEMoE; the defaults are the published ones. :data:`E_WEMOE` has those of its efficient version.

    ``scaling`` is that of the task arithmetic outside the MLPs, and what the routers begin with. ``router_layers`` are the layers of a
    router, the last one included; 0 is a constant. ``batch_reduce`` gives all images of a batch their mean weights, as the released
    code does, so that an image's embedding depends on its batch. ``prune_ratio`` is the fraction of every tensor of the MLPs' task
    vectors that is set to 0, None for none; ``gate_prune_ratio`` the same of the trained routers. ``shared_gate`` is one router for
    all blocks, which tells them apart by ``position_dim`` numbers, where there are any. The routers are trained for ``adapt_steps``
    of Adam at ``adapt_lr``, on ``adapt_batch_size`` images of every task in each. Raises UserError for a value out of range.
    """

    scaling: float = 0.3
    router_layers: int = 2
    batch_reduce: bool = False
    prune_ratio: float | None = None
    gate_prune_ratio: float | None = None
    shared_gate: bool = False
    position_dim: int = 0
    adapt_steps: int = 1000
    adapt_lr: float = 1e-4
    adapt_batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.router_layers not in HIDDEN_LAYERS:
            raise UserError(f"--router-layers is {self.router_layers}; it must be one of 0, 1, 2.")
        for name in ("prune_ratio", "gate_prune_ratio"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name):g}; it must lie between 0 and 1.")
        if self.position_dim < 0 or self.position_dim % 2:
            raise UserError(f"--position-dim is {self.position_dim}; it must be even: a sine and a cosine of each frequency.")
        if self.position_dim and not (self.shared_gate and self.router_layers):
            raise UserError("--position-dim tells the blocks apart for one router, not a constant, that they share; add --shared-gate.")
        if self.adapt_steps < 0 or self.adapt_batch_size < 1 or self.adapt_lr <= 0:
            raise UserError("--adapt-steps must be at least 0, --adapt-batch-size at least 1 and --adapt-lr above 0.")

    @property
    def structure(self) -> dict[str, Any]:
        """Those that say what the encoder is, for a checkpoint's header."""
        return {name: value for name, value in asdict(self).items() if name not in TRAINING}

    @property
    def training(self) -> dict[str, Any]:
        """Those that say how its routers were trained."""
        return {name: getattr(self, name) for name in TRAINING}

    @classmethod
    def of_structure(cls, values: Mapping[str, Any]) -> WemoeOptions:
        """The inverse of :attr:`structure`. Raises ValueError for what that cannot have given."""
        own = {each.name for each in fields(cls)} - set(TRAINING)
        if set(values) != own:
            raise ValueError(f"the options {sorted(values)} are not {sorted(own)}")
        return cls(**values)


E_WEMOE = WemoeOptions(prune_ratio=0.9, shared_gate=True)
