"""Adapters trained to tell classes apart: cross-entropy of a linear layer that is discarded afterwards.

Kravets and Namboodiri, "CLIP Adaptation by Intra-modal Overlap Reduction" (BMVC 2024): on some 200 images of each class of Open
Images, one epoch, batches of 128, AdamW with a constant learning rate of 8e-3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.loading import Batch
from fewshot.objective import Objective, Setting, Step


class Supervised(Objective):
    """The mean over images of -log softmax(W f + b)_y, f the adapted features as they are, neither normalised nor scaled.

    W [C, D] and b [C] start uniform in +-1/sqrt(D), drawn from the seed. The released code trains on pixels in [0, 1] whose
    mean and deviation stay what they are, although the encoder is then used with its own.
    """

    name = "supervised"
    released_statistics = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        width = self.encoder.embed_dim
        generator = torch.Generator().manual_seed(self.runtime.seed)
        self.head = nn.utils.skip_init(nn.Linear, width, len(self.task.classnames))
        for parameter in self.head.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
        self.head.to(self.runtime.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """See :class:`Objective`."""
        return {**super().parameters(), **{f"head.{name}": parameter for name, parameter in self.head.named_parameters()}}

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """See :class:`Objective`."""
        logits = self.head(self.features(batch, step))
        return F.cross_entropy(logits.float(), batch.labels, reduction="sum") / step.images
