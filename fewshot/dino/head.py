"""The head of self-distillation: what student and teacher are compared by, discarded after training."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN, BOTTLENECK = 2048, 256
DEVIATION = 0.02  # of the weights of the MLP at the start


class DinoHead(nn.Module):
    """Features [R, ``width``] to unit vectors [R, 256], and their cosines with ``out_dim`` prototypes.

    An MLP width -> 2048 -> 2048 -> 256 with GELU and no normalisation, then unit length, then the prototypes: the directions of the
    rows of ``last_layer`` (weight normalisation with its gains held at 1, so that no output can dominate by length). With 512 and 65536
    these are 5,771,520 + 16,777,216 parameters. Source: Caron et al. (ICCV 2021), section 3.1 and appendix C.

    All is drawn from ``generator``: the MLP from a normal distribution of deviation 0.02 cut at +-2, its biases 0, ``last_layer``
    uniform in +-1/16. Unit vectors and prototypes are float32 whatever the precision: cosines are divided by temperatures of 0.04,
    which half precision would not leave a digit of.
    """

    def __init__(self, width: int, out_dim: int, generator: torch.Generator, hidden: int = HIDDEN, bottleneck: int = BOTTLENECK) -> None:
        super().__init__()
        widths = (width, hidden, hidden, bottleneck)
        linears = [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.mlp = nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])
        self.last_layer = nn.Parameter(torch.empty(out_dim, bottleneck))
        with torch.no_grad():
            for linear in linears:
                nn.init.trunc_normal_(linear.weight, std=DEVIATION, generator=generator)
                linear.bias.zero_()
            self.last_layer.uniform_(-(bottleneck**-0.5), bottleneck**-0.5, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """Unit vectors float32 [R, 256] of features [R, width]."""
        return F.normalize(self.mlp(features).float(), dim=-1)

    def prototypes(self) -> Tensor:
        """Unit rows float32 [out_dim, 256]."""
        return F.normalize(self.last_layer.float(), dim=-1)
