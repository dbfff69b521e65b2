"""Text towers that run only as far as they must, from tokens or from token embeddings.

In a tower with a causal mask no position sees a later one, so what stands behind the end-of-text token cannot change the
feature that is read there. Prompts of a dozen tokens in a context of 77 therefore cost a sixth of the full run; the result
is the same. Towers that attend in both directions (SigLIP) read the padding too and always get the full context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from common.errors import UserError


@dataclass(frozen=True)
class TextSequence:
    """What the blocks of a text tower are fed with for one tokenised text of L positions, and where the feature is read."""

    embeddings: Tensor  # [L, width] token embeddings, before positions are added; CoCa's appended token is the last one
    positions: Tensor  # [L, width]
    mask: Tensor | None  # [L, L], added to the attention's logits; None: every position sees every other
    pooled: int  # the position whose feature is read


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
        if not self.is_open_clip:
            return self.module.transformer.get_input_embeddings()(tokens)
        return self.module.token_embedding(tokens).to(self.module.transformer.get_cast_dtype())

    def encode(self, tokens: Tensor) -> Tensor:
        """Features [B, D], not normalised, of ``tokens`` [B, L], trimmed or not."""
        if self.is_open_clip:
            return self.encode_embeddings(self.embed(tokens), tokens)
        features = self.module(tokens)  # a Hugging Face text tower pools and projects in its own way
        return features[0] if isinstance(features, tuple) else features

    def encode_embeddings(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Features [B, D] of token embeddings [B, L, width]; ``tokens`` [B, L] say where the feature is read."""
        if not self.is_open_clip:
            return self._encode_huggingface(embeddings, tokens)
        x = self._with_class_token(embeddings) + self._positions(embeddings.shape[1]).to(embeddings.dtype)
        x = self.module.transformer(x, attn_mask=self._mask(tokens, x.dtype))
        if self.has_class_token:
            return self.head(x[:, -1])
        return self._project(text_global_pool(self.module.ln_final(x), tokens, self.pool_type, eos_token_id=self.eos_id))

    def sequence(self, tokens: Tensor) -> TextSequence:
        """What the blocks get for ``tokens`` [1, L], trimmed or not; :class:`UserError` where they are not open_clip's."""
        if not self.is_open_clip or (self.pool_type == "none" and not self.has_class_token):
            raise UserError(f"A text tower of the kind {type(self.module).__name__} shows neither its mask nor where its feature is read.")
        embeddings = self._with_class_token(self.embed(tokens))
        mask = self._mask(tokens, embeddings.dtype)
        if mask is not None and mask.ndim == 3:  # one for each head, all alike
            mask = mask[0]
        positions = self._positions(tokens.shape[1]).to(embeddings.dtype)
        return TextSequence(embeddings[0], positions, mask, self._pooled(tokens))

    def head(self, x: Tensor) -> Tensor:
        """Features [B, D], not normalised, of what the blocks give at the pooled position [B, width]."""
        return self._project(self.module.ln_final(x))

    def _encode_huggingface(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        attention_mask = (tokens != self.module.config.pad_token_id).long()
        output = self.module.transformer(inputs_embeds=embeddings, attention_mask=attention_mask)
        return self.module.proj(self.module.pooler(output, attention_mask))

    def _pooled(self, tokens: Tensor) -> int:
        if self.has_class_token:
            return tokens.shape[1]
        if self.pool_type in ("first", "last"):
            return 0 if self.pool_type == "first" else tokens.shape[1] - 1
        return int(self.end_of_text(tokens))

    def _mask(self, tokens: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The causal mask, the padding mask or their sum, [L, L] or, where it knows the padding, [B * heads, L, L]."""
        length = tokens.shape[1] + self.has_class_token
        causal = self.module.attn_mask
        causal = None if causal is None else causal[:length, :length]
        if not self.has_class_token and not getattr(self.module, "use_pad_mask", False):
            return causal
        padding = self.module._build_additive_mask(tokens, length, dtype)
        return padding if causal is None else causal + padding

    def _positions(self, length: int) -> Tensor:
        positions = self.module.positional_embedding
        if self.has_class_token:  # the appended token keeps the last position, however short the text is
            return torch.cat([positions[:length], positions[-1:]])
        return positions[:length]

    def _with_class_token(self, embeddings: Tensor) -> Tensor:
        if not self.has_class_token:
            return embeddings
        token = self.module.cls_emb.to(embeddings.dtype).expand(len(embeddings), 1, -1)
        return torch.cat([embeddings, token], dim=1)

    def _project(self, pooled: Tensor) -> Tensor:
        projection = self.module.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
