"""Tip-Adapter-F: Tip-Adapter whose keys are trained, from the features of the labelled images on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.affine import Point
from fewshot.cache import Cache
from fewshot.data import FewShotData
from fewshot.learning import Facts, Recipe, learn
from fewshot.method import Fitted, with_corrected
from fewshot.methods.tip_adapter import tip_model
from fewshot.options import FewShotOptions
from fewshot.published import tip_fixed, tip_grid
from fewshot.search import fitted

RECIPE = Recipe(lr=1e-3, batch_size=256, epochs=20, eps=1e-4)
EPOCHS = {"EuroSAT": 100}


def tip_adapter_f(data: FewShotData, options: FewShotOptions, corrected: bool) -> Fitted:
    """logits = Z + alpha exp(-beta (1 - f Kᵀ)) V with learnt keys K [M, D]; f adapted, and K adapted at first, if ``corrected``.

    K starts as the cache and follows the gradient of the cross-entropy of the labelled images, at the published alpha and beta;
    then alpha and beta are searched as for Tip-Adapter. What is learnt after the last epoch is used: the released code takes the
    best epoch on the test images. It also crops the images anew in each epoch; here they are the features of the cache. Source:
    Zhang et al., Tip-Adapter, ECCV 2022.
    """
    fixed = tip_fixed(data.dataset)
    recipe = replace(RECIPE, epochs=EPOCHS.get(data.dataset, RECIPE.epochs))
    keys, facts = learnt_keys(data, corrected, fixed, recipe, options.seed)
    return fitted(tip_model(data, keys, corrected), data, options, tip_grid(data.dataset, options.grid), fixed, facts)


def learnt_keys(data: FewShotData, corrected: bool, point: Point, recipe: Recipe, seed: int) -> tuple[Tensor, Facts]:
    """The keys [M, D] after training at ``point``, in the order of the labelled images, not of unit length; and facts."""
    queries, labels, zero_shot = data.cache.among_images(corrected), data.cache.labels, data.zero_shot(data.cache)
    cache = Cache(queries, labels, data.classes)
    cache.keys = cache.keys.clone()  # in the order of the cache

    def loss(rows: Tensor) -> Tensor:
        similarity = cache.similarity(cache.affinity(queries[rows]), point.beta)
        return F.cross_entropy(zero_shot[rows] + point.alpha * similarity, labels[rows])

    facts = learn([cache.keys], loss, len(labels), recipe, seed)
    return torch.empty_like(cache.keys).index_copy_(0, cache.order, cache.keys), facts


METHODS = with_corrected(
    "tip_adapter_f",
    "Tip-Adapter with keys that are trained from the labelled images on",
    "Zhang et al., ECCV 2022 (arXiv:2207.09519)",
    tip_adapter_f,
    trains=True,
)
