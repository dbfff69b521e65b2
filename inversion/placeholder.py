"""Where pseudo-tokens go in a template: the tokens of the sentence around a placeholder word, and the word's positions."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from common.errors import UserError
from models.encoder import Encoder

PLACES = ("{}", "{c}")  # how a template marks the place of the pseudo-tokens
WORDS = ("£", "¤", "*", "x", "z")  # what may stand there in the tokens; the published one first


def tokenize_template(encoder: Encoder, template: str, n_tokens: int) -> tuple[Tensor, list[int]]:
    """The whole context's tokens [1, L] of ``template`` with ``n_tokens`` (R) placeholders in its place, and their positions.

    As published, a placeholder is the word "£" with a space on either side (without, CLIP's tokenizer joins it with a full
    stop behind it). Whether a tokenizer makes one token of each is seen from what it makes of R - 1 of them; where it does
    not, fewer spaces and other words are tried. Raises :class:`UserError` when the place is not marked exactly once, when
    the sentence does not fit the context, and when no placeholder stays one token.
    """
    if sum(template.count(place) for place in PLACES) != 1:
        raise UserError(f"The template '{template}' must mark the place of the pseudo-tokens exactly once, with {{}}.")
    if n_tokens < 1:
        raise UserError(f"{n_tokens} pseudo-tokens: there must be at least 1.")
    for spaced, separator in ((" {} ", ""), ("{}", " "), ("{}", "")):
        for word in WORDS:
            fewer, whole = (separator.join([spaced.format(word)] * count) for count in (n_tokens - 1, n_tokens))
            found = _place(encoder, _fill(template, fewer), _fill(template, whole), n_tokens)
            if found is not None:
                return found
    tokens = encoder._tokenizer([_fill(template, f" {WORDS[0]} " * n_tokens)])
    if tokens[0, -2] != _padding(encoder):
        raise UserError(
            f"The template '{template}' with {n_tokens} pseudo-tokens does not fit the context of {tokens.shape[1]} tokens; shorten it."
        )
    raise UserError(f"The tokenizer of '{encoder.source.name}' keeps no placeholder in '{template}' whole; use another template.")


def _place(encoder: Encoder, fewer: str, whole: str, n_tokens: int) -> tuple[Tensor, list[int]] | None:
    """Tokens of the sentence ``whole`` and its R placeholders' positions, if each is one token and nothing was cut off.

    Seen by comparison with the sentence that has one placeholder ``fewer``: one token more must have replaced one of padding.
    """
    tokens = encoder._tokenizer([fewer, whole])
    before, ids = tokens.tolist()
    gained, lost = Counter(ids) - Counter(before), Counter(before) - Counter(ids)
    if gained.total() != 1 or lost != {_padding(encoder): 1}:
        return None
    (placeholder,) = gained
    slots = [position for position, token in enumerate(ids) if token == placeholder]
    return (tokens[1:], slots) if slots == list(range(slots[0], slots[0] + n_tokens)) else None


def _fill(template: str, text: str) -> str:
    for place in PLACES:
        template = template.replace(place, text)
    return template


def _padding(encoder: Encoder) -> int:
    """What a tokenizer fills a context with behind a short text."""
    return int(encoder._tokenizer(["a"])[0, -1])
