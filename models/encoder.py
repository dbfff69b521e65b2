"""The Encoder: images and prompts to unit vectors, whatever the architecture and wherever the weights came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.stages import staged
from models.preprocess import Preprocess
from models.text_tower import TextTower
from models.zoo import ModelSource


class Encoder(nn.Module):
    """A contrastive vision-language encoder.

    ``encode_image`` and ``encode_text`` return unit rows of width ``embed_dim``; ``logits`` are
    ``exp(logit_scale) * image_embeddings @ text_embeddings.T + logit_bias``. A tuning may put an adapter on either tower or
    a ``probe`` over the image embeddings (see :mod:`models.tunings`); without one they are the identity and None.

    The encoder is always in evaluation mode: dropout is off and BatchNorm keeps its pretraining statistics, in training too.
    """

    def __init__(self, source: ModelSource, model: nn.Module, preprocess: Preprocess, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.source = source
        self.model = model
        self.preprocess = preprocess
        self.image_adapter: nn.Module = nn.Identity()
        self.text_adapter: nn.Module = nn.Identity()
        self.probe: nn.Module | None = None
        self._tokenizer = tokenizer
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """Stay in evaluation mode, see the class."""
        return super().train(False)

    @property
    def text_tower(self) -> TextTower:
        """The text side of the model."""
        return TextTower(self.model)

    @property
    def image_tower(self) -> nn.Module:
        """The image side of the model."""
        return self.model.visual  # type: ignore[return-value]

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings, as the model gives them: two short passes tell it once and for all architectures."""
        if not hasattr(self, "_embed_dim"):
            with torch.no_grad():
                self._embed_dim = self.text_features(self.tokenize(["a"])).shape[1]
        return self._embed_dim

    @property
    def image_size(self) -> int:
        """Side length in pixels of the (square) input."""
        size = self.image_tower.image_size
        return int(size[0]) if isinstance(size, Sequence) else int(size)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of the scale of the logits (scalar parameter)."""
        return self.model.logit_scale  # type: ignore[return-value]

    @property
    def logit_bias(self) -> Tensor | None:
        """What is added to the logits (scalar parameter), for SigLIP and its kin; None for others."""
        return getattr(self.model, "logit_bias", None)

    def image_features(self, pixels: Tensor) -> Tensor:
        """The image tower's unit vectors [B, D], before any adapter behind it.

        ``pixels`` are preprocessed, float [B, 3, S, S], or bytes, uint8 [B, 3 or 1, H, W], for which what is left of the
        preprocessing is done here.
        """
        return _unit(self.raw_image_features(pixels))

    @staged("image tower")
    def raw_image_features(self, pixels: Tensor) -> Tensor:
        """What the image tower gives, [B, D], of which :meth:`image_features` are the directions; ``pixels`` as there."""
        if pixels.dtype == torch.uint8:
            pixels = self.preprocess.of_bytes(pixels)
        features: Any = self.image_tower(pixels)
        return features[0] if isinstance(features, tuple) else features

    @staged("text tower")
    def text_features(self, tokens: Tensor) -> Tensor:
        """The text tower's unit vectors [P, D] for ``tokens`` [P, L], before any adapter."""
        return _unit(self.text_tower.encode(tokens.to(self.device)))

    def adapt_image(self, features: Tensor) -> Tensor:
        """Image embeddings from the tower's features: the adapter, then unit length again."""
        return _adapted(self.image_adapter, features)

    def adapt_text(self, features: Tensor) -> Tensor:
        """Text embeddings from the tower's features: the adapter, then unit length again."""
        return _adapted(self.text_adapter, features)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit image embeddings [B, D] of ``pixels`` as :meth:`image_features` takes them."""
        return self.adapt_image(self.image_features(pixels))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit text embeddings [P, D] of ``tokens`` [P, L]."""
        return self.adapt_text(self.text_features(tokens))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Tokens int64 [P, L] of ``prompts``, cut behind the last end-of-text token where that is exact."""
        return self.text_tower.trim(self._tokenizer(list(prompts)))

    def logits(self, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Logits [B, P] of unit image embeddings [B, D] against unit text embeddings [P, D], in float32 whatever the precision."""
        with torch.autocast(image_embeddings.device.type, enabled=False):
            logits = self.logit_scale.float().exp() * image_embeddings.float() @ text_embeddings.float().T
            return logits if self.logit_bias is None else logits + self.logit_bias


def _unit(features: Tensor) -> Tensor:
    """Rows of length 1, float32: half precision would leave their cosines with three digits."""
    return F.normalize(features.float(), dim=-1)


def _adapted(adapter: nn.Module, features: Tensor) -> Tensor:
    return features if isinstance(adapter, nn.Identity) else _unit(adapter(features))
