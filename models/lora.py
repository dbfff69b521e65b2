"""LoRA: low-rank updates of weights, computed anew in every forward pass.

A weight W [out, in] becomes ``W + scale * B A`` with A [rank, in] and B [out, rank] (Hu et al., LoRA: Low-Rank Adaptation of
Large Language Models, ICLR 2022, equation 3). ``torch.nn.utils.parametrize`` puts the sum where the architecture reads its
weight, so no architecture is rewritten; W itself is never written to. :func:`fold_lora` makes plain weights of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.encoder import Encoder
from models.parts import Projection, Tower, attention_projections, mlp_linears, named_blocks, no_place, towers

TARGETS = ("q", "v")  # the maps that the paper updates; also k, out (the map behind an attention) and mlp
INPUTS = ("in_proj_weight", "q_proj_weight", "qkv", "q_proj", "kv")  # one of them is in every attention, under whatever name
INITIAL_DEVIATION = 0.02  # of A; B is 0, so that the encoder starts as it was


class LowRank(nn.Module):
    """``W -> W + scale * B A`` on some ranges of rows of W; the others pass through unchanged.

    ``lora_A`` and ``lora_B`` hold one pair for each of ``projections``, keyed by role (q, k, v, out, mlp).
    """

    def __init__(self, projections: Sequence[Projection], rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        weight = projections[0].weight
        self.scale = scale
        self.rows = {projection.role: (projection.start, projection.stop) for projection in projections}
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        for role, (start, stop) in self.rows.items():
            drawn = INITIAL_DEVIATION * torch.randn(rank, weight.shape[1], generator=generator)
            self.lora_A[role] = nn.Parameter(drawn.to(weight))
            self.lora_B[role] = nn.Parameter(weight.new_zeros(stop - start, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, a new tensor."""
        parts, done = [], 0
        for role, (start, stop) in self.rows.items():
            parts.append(weight[done:start])
            parts.append(weight[start:stop] + self.scale * (self.lora_B[role] @ self.lora_A[role]))
            done = stop
        return torch.cat([*parts, weight[done:]])


def add_lora(
    encoder: Encoder, rank: int, scale: float, seed: int, targets: Sequence[str] = TARGETS, tuned: Sequence[Tower] | None = None
) -> None:
    """Put trainable low-rank updates on the ``targets`` in every attention and block of the towers ``tuned``, by default both.

    What is drawn depends on ``seed`` and on the encoder's shape only. Raises :class:`UserError`, before anything is
    changed, when a tower has no attention.
    """
    if lora_weights(encoder):
        raise ValueError("the encoder has LoRA already; fold it first")
    groups = [group for tower in tuned or towers(encoder) for group in _groups(_adapted(tower, targets))]
    generator = torch.Generator().manual_seed(seed)
    for group in groups:
        update = LowRank(group, rank, scale, generator)
        parametrize.register_parametrization(group[0].module, group[0].parameter, update)
        if isinstance(group[0].module, nn.MultiheadAttention):
            _compute_once_per_forward(group[0].module)


def lora_weights(root: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The weights in ``root`` that carry a low-rank update: plain name -> (module, parameter's name)."""
    found = {}
    for name, module in root.named_modules():
        for parameter, chain in getattr(module, "parametrizations", {}).items():
            if any(isinstance(link, LowRank) for link in chain):
                found[f"{name}.{parameter}"] = (module, parameter)
    return found


def folded_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``model`` with its low-rank updates added in and the plain names; ``model`` stays as it is."""
    with torch.no_grad():
        folded = {name: getattr(module, parameter) for name, (module, parameter) in lora_weights(model).items()}
    plain: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        holder, found, rest = name.partition("parametrizations.")
        if not found:
            plain[name] = tensor
        elif rest.endswith(".original"):
            weight = holder + rest.removesuffix(".original")
            plain[weight] = folded[weight]
    return plain


def fold_lora(encoder: Encoder) -> None:
    """Make plain, frozen weights of all low-rank updates of ``encoder``; what it computes stays the same.

    ``torch.nn.utils.parametrize.remove_parametrizations`` would do for one encoder, but a deep copy shares the class that
    it takes the property from, and the other one would lose its weights.
    """
    modules = {id(module): module for module, _ in lora_weights(encoder).values()}
    for module in modules.values():
        chains: Any = module.parametrizations
        with torch.no_grad():
            folded = {parameter: getattr(module, parameter).detach().clone() for parameter in chains}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for parameter, weight in folded.items():
            module.register_parameter(parameter, nn.Parameter(weight, requires_grad=False))


def _adapted(tower: Tower, targets: Sequence[str]) -> list[Projection]:
    """The maps of a tower that get an update, in a fixed order."""
    attention = attention_projections(tower)
    if not attention:
        raise no_place(tower, "lora", "no attention in its blocks", "full, bias, adapter, probe")
    mlps = [linear for block in named_blocks(tower).values() for linear in mlp_linears(block)]
    return [projection for projection in [*attention, *attention_outputs(tower), *mlps] if projection.role in targets]


def attention_outputs(tower: Tower) -> list[Projection]:
    """The linear map behind every attention of a tower that has :func:`~models.parts.attention_projections`."""
    attentions = [module for _, module in tower.named_modules() if any(getattr(module, name, None) is not None for name in INPUTS)]
    linears = [getattr(module, "out_proj", None) or getattr(module, "proj", None) for module in attentions]
    return [Projection("out", one, "weight", 0, one.out_features) for one in linears if isinstance(one, nn.Linear)]  # type: ignore[arg-type]


def _groups(projections: list[Projection]) -> list[list[Projection]]:
    """The maps that lie in one weight, together: a weight can have one parametrisation that knows all of its rows."""
    groups: dict[tuple[int, str], list[Projection]] = {}
    for projection in projections:
        groups.setdefault((id(projection.module), projection.parameter), []).append(projection)
    return list(groups.values())


def _compute_once_per_forward(module: nn.Module) -> None:
    """Keep the updated weight for the length of one forward pass of ``module``.

    ``nn.MultiheadAttention`` reads its weight several times, and each reading computes it. The method goes to the class that
    parametrize made for this module alone, so it lasts exactly as long as the parametrisation does.
    """
    made: Any = type(module)
    plain = made.__bases__[0].forward

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with parametrize.cached():
            return plain(self, *args, **kwargs)

    made.forward = forward
