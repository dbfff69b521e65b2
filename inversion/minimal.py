"""Modality inversion in ten lines of Python, of one image and of one text.

>>> from PIL import Image
>>> from inversion.minimal import oti, ovi
>>> from models.loading import load_encoder
>>> encoder = load_encoder("tiny")
>>> image = encoder.encode_image(encoder.preprocess(Image.new("RGB", (32, 32), "red"))[None])
>>> as_text = oti(encoder, image)  # a pseudo-token v* for which "a photo of v*" says what the image says
>>> text = encoder.encode_text(encoder.tokenize(["a red circle"]))
>>> as_image = ovi(encoder, text, n_tokens=4, steps=100)  # pseudo-patches that say what the text says
>>> as_text.features.shape == as_image.features.shape == (1, 1, encoder.embed_dim)  # 1 item, 1 recorded step
True
>>> bool(as_text.losses < 0.5) and bool(as_image.losses < 0.5)  # 1 - cosine to the image, to the text
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from inversion.optimise import InversionOptions, Inverted, Tower, invert
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from inversion.published import STEPS, TEMPLATE
from models.encoder import Encoder


def oti(
    encoder: Encoder,
    image_embeddings: Tensor,
    names: Sequence[str] | None = None,
    *,
    template: str = TEMPLATE,
    n_tokens: int = 1,
    **options: Any,
) -> Inverted:
    """Pseudo-tokens in ``template`` whose text-side features are ``image_embeddings`` [B, D], as oti.py learns them.

    The ``names`` decide where items start, by default their numbers; ``options`` are those of
    :class:`~inversion.optimise.InversionOptions`, e.g. ``steps`` and ``seed``.
    """
    return _invert(PseudoText(encoder, template, n_tokens), encoder, image_embeddings, names, InversionOptions(**options))


def ovi(encoder: Encoder, text_embeddings: Tensor, names: Sequence[str] | None = None, *, n_tokens: int = 1, **options: Any) -> Inverted:
    """Pseudo-patches whose image-side features are ``text_embeddings`` [B, D], as ovi.py learns them, in 1000 steps; see :func:`oti`."""
    return _invert(PseudoImage(encoder, n_tokens), encoder, text_embeddings, names, InversionOptions(**{"steps": STEPS["ovi"], **options}))


def _invert(tower: Tower, encoder: Encoder, embeddings: Tensor, names: Sequence[str] | None, options: InversionOptions) -> Inverted:
    names = [str(number) for number in range(len(embeddings))] if names is None else names
    return invert(tower, embeddings.detach().to(encoder.device), names, options)
