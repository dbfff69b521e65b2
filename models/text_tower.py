"""Text towers that run only as far as they must, from tokens or from token embeddings.

In a tower with a causal mask no position sees a later one, so what stands behind the end-of-text token cannot change the
feature that is read there. Prompts of a dozen tokens in a context of 77 therefore cost a sixth of the full run; the result
is the same. Towers that attend in both directions (SigLIP) read the padding too and always get the full context.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn


class TextTower:
    """The text side of an open_clip model, whether it lies in the model itself (CLIP) or in ``model.text``.

    A view without parameters of its own. ``module`` is the module that holds the text parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        inner = getattr(model, "text", None)
        self.module: Any = model if inner is None else inner
        prefix = "text_" if inner is None else ""
        self.pool_type: str = getattr(self.module, f"{prefix}pool_type", "none")
        self.eos_id: int | None = getattr(self.module, f"{prefix}eos_id", None)
        self.is_open_clip = inner is None or isinstance(inner, TextTransformer)

    @property
    def has_class_token(self) -> bool:
        """CoCa's text tower appends a learnt token and reads its feature instead of that of end-of-text."""
        return getattr(self.module, "cls_emb", None) is not None

    @property
    def is_causal(self) -> bool:
        """Whether no position sees a later one."""
        return self.is_open_clip and getattr(self.module, "attn_mask", None) is not None

    @property
    def context_length(self) -> int:
        """Tokens in a full context, without CoCa's appended one."""
        return int(self.module.context_length)

    def trim(self, tokens: Tensor) -> Tensor:
        """Drop the columns of ``tokens`` [B, L] that cannot change any feature of the batch.

        Causal towers keep all up to the last end-of-text token. CoCa keeps one column more: in its released weights the
        padding mask is shifted by one, so the appended token sees the first padding token. Others keep everything.
        """
        if not self.is_causal:
            return tokens
        if self.has_class_token:
            used = (tokens != self.module.pad_id).any(dim=0).nonzero()
            return tokens[:, : int(used.max()) + 2]
        if self.pool_type not in ("argmax", "eos"):
            return tokens
        return tokens[:, : int(self.end_of_text(tokens).max()) + 1]

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """Position [B] of the token whose feature is read: the greatest id, or the first one that equals ``eos_id``."""
        if self.pool_type == "argmax":
            return tokens.argmax(dim=1)
        assert self.eos_id is not None
        return tokens.eq(self.eos_id).int().argmax(dim=1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings [B, L, width], before positions are added: the place where pseudo-tokens go."""
        return self.module.token_embedding(tokens).to(self.module.transformer.get_cast_dtype())

    def encode(self, tokens: Tensor) -> Tensor:
        """Features [B, D], not normalised, of ``tokens`` [B, L], trimmed or not."""
        if self.is_open_clip:
            return self.encode_embeddings(self.embed(tokens), tokens)
        features = self.module(tokens)  # a Hugging Face text tower pools and projects in its own way
        return features[0] if isinstance(features, tuple) else features

    def encode_embeddings(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Features [B, D] of token embeddings [B, L, width]; ``tokens`` [B, L] say where the feature is read."""
        length = embeddings.shape[1]
        x, mask = self._with_class_token(embeddings, tokens) if self.has_class_token else (embeddings, self._mask(length))
        x = x + self._positions(length).to(x.dtype)
        x = self.module.transformer(x, attn_mask=mask)
        if self.has_class_token:
            pooled = self.module.ln_final(x[:, -1])
        else:
            pooled = text_global_pool(self.module.ln_final(x), tokens, self.pool_type, eos_token_id=self.eos_id)
        return self._project(pooled)

    def _mask(self, length: int) -> Tensor | None:
        mask = self.module.attn_mask
        return None if mask is None else mask[:length, :length]

    def _positions(self, length: int) -> Tensor:
        positions = self.module.positional_embedding
        if self.has_class_token:  # the appended token keeps the last position, however short the text is
            return torch.cat([positions[:length], positions[-1:]])
        return positions[:length]

    def _with_class_token(self, embeddings: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        batch, length, _ = embeddings.shape
        token = self.module.cls_emb.to(embeddings.dtype).expand(batch, 1, -1)
        padding = self.module._build_additive_mask(tokens, length + 1, embeddings.dtype)
        return torch.cat([embeddings, token], dim=1), self.module.attn_mask[: length + 1, : length + 1] + padding

    def _project(self, pooled: Tensor) -> Tensor:
        projection = self.module.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
