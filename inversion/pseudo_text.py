"""The text tower as a function of pseudo-tokens: what OTI optimises (Mistretta et al., Cross the Gap, ICLR 2025).

Pseudo-tokens stand in the place of a placeholder word in a sentence, in the space of token embeddings, before positions
are added. All else in the sentence is constant. What follows from that is told by the tower's attention mask, so it holds
for every tower:

- a position that the pooled one does not see, not even by way of others, is left out (the padding in a causal tower);
- a position that sees no pseudo-token, not even by way of others, has the same keys and values in every step (the words
  before the placeholder in a causal tower): they are computed once;
- the last block is computed at the pooled position only.

In CLIP's tower and "a photo of {}" this leaves 2 of 77 positions. A tower without mask (SigLIP) keeps all of its positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from inversion.placeholder import tokenize_template
from inversion.published import TEMPLATE
from models import blocks
from models.encoder import Encoder
from models.text_tower import TextSequence

Form = Literal["cached", "cut", "full"]


@dataclass(frozen=True)
class _Constants:
    """What does not change from step to step, on one device and in one precision."""

    tokens: Tensor  # [1, L]
    before: Tensor  # [1, a, width] what is fed in before the pseudo-tokens
    added: Tensor  # [R, width] the positions of the pseudo-tokens
    after: Tensor  # [1, b, width]
    mask: Tensor | None = None  # [live, constant + live]
    context: list[blocks.KeysValues] | None = None  # of the constant positions

    def around(self, pseudo_tokens: Tensor) -> Tensor:
        """The input [B, a + R + b, width] with ``pseudo_tokens`` [B, R, width] in their place."""
        batch = len(pseudo_tokens)
        middle = pseudo_tokens.to(self.added.dtype) + self.added
        return torch.cat([self.before.expand(batch, -1, -1), middle, self.after.expand(batch, -1, -1)], dim=1)


class PseudoText:
    """The unit embedding of ``template`` with ``n_tokens`` (R) pseudo-tokens in its place, as a function of these.

    All forms give the same numbers: ``full`` runs the tower as it is over the whole context (the published way), ``cut``
    leaves out what the pooled position does not see, ``cached`` also computes only once what sees no pseudo-token. A tower
    whose blocks are not open_clip's plain ones is cut but not cached; a Hugging Face tower runs in full.

    The encoder may move to another device, but its weights must not change as long as this object is used. Raises
    :class:`UserError` as :func:`inversion.placeholder.tokenize_template`, and for the form ``cut`` of a tower that attends in
    both directions: there the padding counts.
    """

    def __init__(self, encoder: Encoder, template: str = TEMPLATE, n_tokens: int = 1, form: Form = "cached") -> None:
        tower = encoder.text_tower
        if form == "cut" and not tower.is_causal:
            raise UserError(f"The text tower of '{encoder.source.name}' attends to its padding and cannot be cut; use the form 'cached'.")
        self.encoder, self.template = encoder, template
        self.form: Form = form if tower.is_open_clip else "full"
        self._tokens, self.slots = tokenize_template(encoder, template, n_tokens)
        self.shape = (n_tokens, int(tower.embed(self._tokens[:, :1].to(encoder.device)).shape[-1]))
        self.end: int | None = None  # a Hugging Face tower may read its feature off all positions
        if tower.is_open_clip:
            sequence = tower.sequence(self._tokens.to(encoder.device))
            self.end = sequence.pooled
            self._plain_blocks = blocks.are_known(tower.module.transformer.resblocks)
            self._live, self._constant = _divide(sequence, self.slots, form == "cached" and self._plain_blocks)
            self._pooled = self._live.index(sequence.pooled)
        self._computed: dict[tuple[torch.device, torch.dtype | None], _Constants] = {}

    def features(self, pseudo_tokens: Tensor) -> Tensor:
        """Unit float32 embeddings [B, D], the text adapter included, of ``pseudo_tokens`` [B, R, width]; differentiable."""
        constants = self._constants(pseudo_tokens.device)
        x = constants.around(pseudo_tokens)
        features = self._run_full(x, constants) if self.form == "full" else self._run_live(x, constants)
        return self.encoder.adapt_text(F.normalize(features.float(), dim=-1))

    def _run_full(self, x: Tensor, constants: _Constants) -> Tensor:
        return self.encoder.text_tower.encode_embeddings(x, constants.tokens.expand(len(x), -1))

    def _run_live(self, x: Tensor, constants: _Constants) -> Tensor:
        tower = self.encoder.text_tower
        transformer = tower.module.transformer
        if self._plain_blocks:
            return tower.head(blocks.read_one(transformer.resblocks, x, self._pooled, constants.mask, constants.context))
        return tower.head(transformer(x, attn_mask=constants.mask)[:, self._pooled])

    def _constants(self, device: torch.device) -> _Constants:
        """What was computed in the first call on this device and in this precision."""
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        if (device, dtype) not in self._computed:
            self._computed[device, dtype] = self._compute(self._tokens.to(device), dtype)
        return self._computed[device, dtype]

    @torch.compiler.disable
    def _compute(self, tokens: Tensor, dtype: torch.dtype | None) -> _Constants:
        """In the weights' precision, as gradients of later calls need it even if this call takes none."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.clone()
            return self._compute_full(tokens) if self.form == "full" else self._compute_live(tokens, dtype)

    def _compute_full(self, tokens: Tensor) -> _Constants:
        """Token embeddings without positions, which the tower adds itself."""
        embeddings, first, last = self.encoder.text_tower.embed(tokens), self.slots[0], self.slots[-1]
        return _Constants(tokens, embeddings[:, :first], torch.zeros_like(embeddings[0, self.slots]), embeddings[:, last + 1 :])

    def _compute_live(self, tokens: Tensor, dtype: torch.dtype | None) -> _Constants:
        """Inputs with positions in the weights' precision; masks, keys and values in ``dtype``, that of the attention."""
        tower, live, constant = self.encoder.text_tower, self._live, self._constant
        sequence = tower.sequence(tokens)
        x = (sequence.embeddings + sequence.positions)[None]
        dtype = dtype or x.dtype
        mask = _part(sequence.mask, live, constant + live)
        context = None
        if constant:
            pairs = blocks.keys_and_values(tower.module.transformer.resblocks, x[:, constant], _part(sequence.mask, constant, constant))
            context = [(keys.to(dtype), values.to(dtype)) for keys, values in pairs]
        first, last = live.index(self.slots[0]), live.index(self.slots[-1])
        before, after = x[:, live[:first]], x[:, live[last + 1 :]]
        return _Constants(tokens, before, sequence.positions[self.slots], after, None if mask is None else mask.to(dtype), context)


def _divide(sequence: TextSequence, slots: list[int], cache: bool) -> tuple[list[int], list[int]]:
    """The positions to compute in every step, and with ``cache`` those to compute once; the pooled one depends on no others."""
    length = len(sequence.positions)
    sees = torch.ones(length, length, dtype=torch.bool) if sequence.mask is None else sequence.mask.cpu() > float("-inf")
    needed, changing = _reached(sees, [sequence.pooled]), _reached(sees.T, slots)
    if not changing[sequence.pooled]:
        raise UserError("The text tower reads its feature at a position that sees no pseudo-token; there is nothing to optimise.")
    constant = needed & ~changing if cache else torch.zeros_like(needed)
    return _positions(needed & ~constant), _positions(constant)


def _reached(links: Tensor, start: list[int]) -> Tensor:
    """Boolean [L]: what is reached from ``start``, itself included, by the boolean ``links`` [L, L] from row to column."""
    reached = torch.zeros(len(links), dtype=torch.bool)
    reached[start] = True
    while True:
        grown = reached | links[reached].any(dim=0)
        if torch.equal(grown, reached):
            return reached
        reached = grown


def _positions(chosen: Tensor) -> list[int]:
    return chosen.nonzero().flatten().tolist()


def _part(mask: Tensor | None, rows: list[int], columns: list[int]) -> Tensor | None:
    """Those rows and columns of an additive mask; None where it masks nothing in them."""
    part = None if mask is None else mask[rows][:, columns]
    return part if part is not None and part.any() else None
