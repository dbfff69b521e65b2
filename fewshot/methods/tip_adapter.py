"""Tip-Adapter: zero-shot logits, and for each class the similarity to its labelled images."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.affine import Affine, AffineModel, image_by_image
from fewshot.cache import Cache
from fewshot.data import Features, FewShotData
from fewshot.method import Fitted, with_corrected
from fewshot.options import FewShotOptions
from fewshot.published import tip_fixed, tip_grid
from fewshot.search import fitted


def tip_adapter(data: FewShotData, options: FewShotOptions, corrected: bool) -> Fitted:
    """logits = Z + alpha exp(-beta (1 - f Fᵀ)) V, with f and F adapted if ``corrected``; Z is always of original features.

    Source: Zhang et al., Tip-Adapter, ECCV 2022; corrected: Kravets and Namboodiri, BMVC 2024.
    """
    model = tip_model(data, data.cache.among_images(corrected), corrected)
    return fitted(model, data, options, tip_grid(data.dataset, options.grid), tip_fixed(data.dataset))


def tip_model(data: FewShotData, keys: Tensor, corrected: bool) -> AffineModel:
    """Tip-Adapter with ``keys`` [M, D] for the labelled images: those of the cache, or learnt ones."""
    cache = Cache(keys, data.cache.labels, data.classes)

    def of(images: Features) -> Affine:
        affinity = cache.affinity(images.among_images(corrected))
        room = torch.empty_like(affinity)
        return Affine(data.zero_shot(images), lambda beta, gamma: cache.similarity(affinity, beta, room))

    return image_by_image(of)


METHODS = with_corrected(
    "tip_adapter",
    "zero-shot logits, and how similar the image is to the labelled images of each class",
    "Zhang et al., ECCV 2022 (arXiv:2207.09519)",
    tip_adapter,
)
