"""The regression of RegMean: one weight that answers like several, each on its own inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from common.errors import UserError
from merging.data import MergeData, in_float64
from merging.grams import Grams
from merging.method import MergeTensor
from merging.weights import Pool

RIDGES = (0.0, 1e-5, 1e-4)  # shares of the diagonal
ROUNDING = 1e-6  # of a Gram matrix in float32, as a share of its diagonal; below it a pivot tells nothing


class Regression:
    """The weight W [out, in] with the least Σ_k ||X_k W^T - X_k W_k^T||^2 / n_k, told of the tasks one after the other.

    W^T = (Σ_k G^_k)^{-1} Σ_k G^_k W_k^T, where G^ is G = X^T X / n with its off-diagonal multiplied by ``ratio``. All that is kept is
    S = Σ_k G^_k [in, in] and R = Σ_k G^_k W_k^T [in, out], in float64. Source: Jin et al., ICLR 2023, section 3.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.s: Tensor | None = None
        self.r: Tensor | None = None

    def add(self, gram: Tensor, weight: Tensor) -> None:
        """One task: its Gram matrix [in, in] and its weight [out, in]."""
        exact = in_float64(gram)
        shrunk = shrink((exact + exact.T) / 2, self.ratio)  # rounding leaves a product in float32 not quite symmetric
        target = shrunk @ in_float64(weight).T
        self.s = shrunk if self.s is None else self.s.add_(shrunk)
        self.r = target if self.r is None else self.r.add_(target)

    def solve(self, average: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """W float32 on the CPU, and the ridge that it took: a share of the diagonal, 0 where the inputs span their space.

        What the tasks do not decide, because no input has a part in that direction, is drawn to the ``average`` of the weights.
        """
        assert self.s is not None
        assert self.r is not None
        scale = self.s.diagonal().sqrt()
        scale = torch.where(scale > 0, scale, 1.0)[:, None]
        factor, ridge = cholesky(self.s / scale / scale.T)
        target = self.r / scale
        if ridge:
            target += ridge * scale * average().to(self.r).T
        return (torch.cholesky_solve(target, factor) / scale).T.float().cpu(), ridge


def shrink(gram: Tensor, ratio: float) -> Tensor:
    """``gram`` with its off-diagonal multiplied by ``ratio``."""
    return (ratio * gram).diagonal_scatter(gram.diagonal())


def cholesky(matrix: Tensor) -> tuple[Tensor, float]:
    """The lower Cholesky factor of a symmetric matrix with unit diagonal, or of it plus the least of :data:`RIDGES` that gives it one."""
    for ridge in RIDGES:
        lifted = matrix.diagonal_scatter(matrix.diagonal() + ridge)
        factor, failed = torch.linalg.cholesky_ex(lifted)
        if not failed and factor.diagonal().square().min() > ROUNDING:
            return factor, ridge
    raise ArithmeticError("a Gram matrix is not positive semidefinite")


class BlockRegression:
    """The merged weights of one block, from the Gram matrices of every task; ``prefix`` is that of its tensors' names in the pool."""

    def __init__(self, pool: Pool, block: nn.Module, prefix: str, ratio: float) -> None:
        self.block, self.prefix = block, prefix
        self.wanted = [name.removeprefix(prefix) for name in pool.merged if name.startswith(prefix)]
        self.regressions: dict[str, Regression] = defaultdict(lambda: Regression(ratio))

    def grams(self) -> Grams:
        """To watch the block with, anew for every task."""
        return Grams(self.block, self.wanted)

    def add(self, grams: Grams, model: str) -> None:
        """The task of ``model``, whose weights are in the block now. UserError where it gave what is not finite."""
        for name in grams.names:
            gram = grams.mean(name)
            if not gram.isfinite().all():
                raise UserError(f"What goes into '{self.prefix}{name}' of '{model}' is not finite; its weights have diverged.")
            self.regressions[name].add(gram, self.block.get_parameter(name))

    def solve(self, average: MergeTensor, data: MergeData) -> dict[str, Tensor]:
        """The merged weights by their names in the pool; where the inputs did not decide them, that is told."""
        solved = {}
        for name, regression in self.regressions.items():
            full = self.prefix + name
            solved[full], ridge = regression.solve(partial(average, full))
            if ridge:
                data.runtime.say(
                    f"The inputs of '{full}' do not span their space; what they leave open is drawn to the average ({ridge:g})."
                )
        return solved
