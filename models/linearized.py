"""L-LoRA: low-rank updates that act linearly in what trains, which makes their task vectors easier to add up.

Tang et al., Parameter-Efficient Multi-Task Model Fusion with Partial Linearization, ICLR 2024 (PETA, arXiv 2310.04742): each
adapted map f(x; A, B) = (W + s B A) x is replaced by its first-order Taylor expansion around the start (A0, B0). As f is bilinear in
A and B, the expansion needs no Jacobian-vector product, it is a weight again::

    f(x; A0, B0) + J (A - A0, B - B0) = (W + s (B A0 + B0 A - B0 A0)) x

LoRA starts from B0 = 0. What is left is W + s B A0: the trained A has no effect and no gradient. So here A0 is drawn once, as LoRA's A
is, and stays; B trains. The two encoders compute alike, and what follows (folding, merging, exporting) is LoRA's.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.lora import LowRank


def linearized_update(a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
    """``B A0 + B0 A - B0 A0`` [out, in], which scaled and added to W is the expansion of ``B A`` around (A0, B0).

    ``a`` and ``a0`` are [rank, in], ``b`` and ``b0`` [out, rank].
    """
    return b @ a0 + b0 @ (a - a0)


def train_linearized(root: nn.Module) -> None:
    """Of all low-rank updates in ``root``, let B train and keep A at the start around which the update is linear."""
    for module in root.modules():
        if isinstance(module, LowRank):
            module.lora_A.requires_grad_(False)
            module.lora_B.requires_grad_(True)
