"""Multinomial logistic regression with an L2 penalty, by L-BFGS on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 1e-6  # of the largest part of the gradient of the mean loss
HISTORY = 10  # of L-BFGS, as in SciPy


class Linear(NamedTuple):
    """Logits of rows x are ``weight`` x + ``bias``: [C, D] and [C]."""

    weight: Tensor
    bias: Tensor

    def logits(self, rows: Tensor) -> Tensor:
        """Logits [N, C] of ``rows`` [N, D]."""
        return rows @ self.weight.T + self.bias


def at_zero(classes: int, rows: Tensor) -> Linear:
    """Where a fit starts by default: all weights 0, for rows like ``rows``."""
    return Linear(rows.new_zeros(classes, rows.shape[1]), rows.new_zeros(classes))


def logistic_regression(rows: Tensor, labels: Tensor, penalty: float, steps: int, start: Linear) -> Linear:
    """The minimum of sum_i -log softmax(W x_i + b)_{y_i} + penalty / 2 ||W||²; the intercept b is not penalised.

    ``rows`` [N, D], best float64 and centred; ``labels`` [N], every class with an image; at most ``steps`` steps from ``start``, which
    decides only how soon the minimum is found. scikit-learn's C is 1 / penalty.
    """
    weight, bias = (part.detach().clone().requires_grad_(True) for part in start)
    settings = {"max_iter": steps, "max_eval": 5 * steps // 4, "history_size": HISTORY, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight, bias], tolerance_grad=TOLERANCE, tolerance_change=0.0, **settings)  # type: ignore[arg-type]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(rows, weight, bias), labels) + penalty / (2 * len(labels)) * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    return Linear(weight.detach(), bias.detach())
