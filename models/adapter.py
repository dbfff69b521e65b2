"""What a tuning puts behind the towers: the CLIP-Adapter on the embeddings, a linear probe on the image embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError


class ClipAdapter(nn.Module):
    """A bottleneck mixed into unit features f [N, d]: ``ratio * relu(W2 relu(W1 f)) + (1 - ratio) * f``.

    The encoder brings the result to unit length. W1 [d // reduction, d] and W2 [d, d // reduction] have no biases, so the
    map is homogeneous: whether it is given raw features or unit ones, the embedding is the same.

    Source: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024, equations 3 to 6.
    Weights start as those of ``nn.Linear`` do, uniform in +-1/sqrt(inputs), drawn from ``generator``. Raises
    :class:`UserError` when ``reduction`` leaves no unit in the middle.
    """

    def __init__(self, width: int, reduction: int, ratio: float, generator: torch.Generator) -> None:
        super().__init__()
        if reduction > width:
            raise UserError(f"--reduction {reduction} leaves nothing of an embedding of width {width}; use at most {width}.")
        self.ratio = ratio
        self.down = _drawn(width, width // reduction, generator)
        self.up = _drawn(width // reduction, width, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Adapted features [N, d], not of unit length, of ``features`` [N, d]."""
        adapted = F.relu(self.up(F.relu(self.down(features))))
        return self.ratio * adapted + (1 - self.ratio) * features


class LinearProbe(nn.Module):
    """A linear classifier on unit image embeddings x [N, D]: logits [N, C] are ``exp(logit_scale) * (W x + b)``.

    W [C, D] is ``weight`` when given (with the class text embeddings, the probe is the zero-shot classifier to begin
    with, up to the constant ``logit_bias`` of SigLIP, which no softmax sees), otherwise normal with deviation 1/sqrt(D), drawn
    from ``generator``; b [C] is 0. The scale is the encoder's and stays as it is.
    """

    logit_scale: Tensor

    def __init__(self, classnames: Sequence[str], width: int, logit_scale: Tensor, start: Tensor | torch.Generator) -> None:
        super().__init__()
        self.classnames = tuple(classnames)
        shape = (len(self.classnames), width)
        weight = torch.randn(shape, generator=start) / width**0.5 if isinstance(start, torch.Generator) else start
        if tuple(weight.shape) != shape:
            raise ValueError(f"the probe's weights must have the shape {shape}, not {tuple(weight.shape)}")
        self.weight = nn.Parameter(weight.detach().float().cpu().clone())
        self.bias = nn.Parameter(torch.zeros(len(self.classnames)))
        self.register_buffer("logit_scale", logit_scale.detach().cpu().clone(), persistent=False)

    def forward(self, image_embeddings: Tensor) -> Tensor:
        """Logits [N, C] of ``image_embeddings`` [N, D]."""
        scale = self.logit_scale.exp()
        return scale * image_embeddings @ self.weight.T + scale * self.bias


def _drawn(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer without bias whose weights come from ``generator`` alone."""
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    bound = inputs**-0.5
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
    return linear
