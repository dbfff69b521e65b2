"""The image tower as a function of pseudo-patches: what OVI optimises (Mistretta et al., Cross the Gap, ICLR 2025)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from models.encoder import Encoder
from models.image_tower import ImageTower


def spread(n_pseudo: int, n_patches: int) -> Tensor:
    """Which of ``n_pseudo`` (P) pseudo-patches each of ``n_patches`` (N) patches gets: ``floor(j P / N)`` for j < N, int64 [N].

    Patches are counted row by row, so each pseudo-patch fills a run of them.
    """
    return torch.arange(n_patches) * n_pseudo // n_patches


class PseudoImage:
    """The unit embedding of an image all of whose patches are ``n_tokens`` (P) pseudo-patches, as a function of these.

    Pseudo-patches are what the patch embedding would give: class token and positions are added to them. Raises
    :class:`UserError` when the image tower takes no patches, or fewer than ``n_tokens``.
    """

    def __init__(self, encoder: Encoder, n_tokens: int = 1) -> None:
        self.encoder = encoder
        self._tower = ImageTower(encoder)
        if not 1 <= n_tokens <= self._tower.n_patches:
            raise UserError(f"{n_tokens} pseudo-patches cannot fill the {self._tower.n_patches} patches of '{encoder.source.name}'.")
        self.shape = (n_tokens, self._tower.width)
        self._index = spread(n_tokens, self._tower.n_patches)

    def features(self, pseudo_tokens: Tensor) -> Tensor:
        """Unit float32 embeddings [B, D], the image adapter included, of pseudo-patches [B, P, width]; differentiable."""
        if self._index.device != pseudo_tokens.device:
            with torch.inference_mode(False):  # later calls may take gradients
                self._index = self._index.to(pseudo_tokens.device)
        features = self._tower.encode_patches(pseudo_tokens[:, self._index])
        return self.encoder.adapt_image(F.normalize(features.float(), dim=-1))
