"""CLIP-Adapter: a bottleneck that is trained behind the image tower and mixed into its features."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.data import Features, FewShotData
from fewshot.learning import Recipe, learn
from fewshot.method import Fitted, Method
from fewshot.options import FewShotOptions
from models.adapter import ClipAdapter

REDUCTION, RATIO = 4, 0.2
RECIPE = Recipe(lr=2e-3, batch_size=32, optimizer="SGD", wd=5e-4, by_epoch=True, first_lr=1e-5)
EPOCHS = ((8, 200), (2, 100), (1, 50))  # (shots at least, epochs)
IMAGENET_EPOCHS = 50


def clip_adapter(data: FewShotData, options: FewShotOptions) -> Fitted:
    """logits = 100 unit(0.2 relu(W2 relu(W1 f)) + 0.8 f) Wᵀ with W1 [D/4, D] and W2 [D, D/4] that are trained by cross-entropy.

    The ratio 0.2 and the bottleneck on images alone are those of the released code, which is a trainer of CoOp's and trains as
    CoOp does: SGD at 2e-3 on batches of 32, more epochs for more shots. It crops the images anew in each epoch; here they are the
    features of the cache. There is nothing to search. Source: Gao et al., CLIP-Adapter, IJCV 2024, equations 3 to 6; recipe:
    Zhou et al., CoOp, IJCV 2022.
    """
    width = data.classifier.shape[1]
    adapter = ClipAdapter(width, REDUCTION, RATIO, torch.Generator().manual_seed(options.seed)).to(data.classifier.device)

    def logits(images: Features) -> Tensor:
        return data.logit_scale * F.normalize(adapter(images.original), dim=1) @ data.classifier.T

    def loss(rows: Tensor) -> Tensor:
        some = data.cache[rows]
        return F.cross_entropy(logits(some), some.labels)

    recipe = replace(RECIPE, epochs=epochs_for(data))
    facts = learn([*adapter.parameters()], loss, len(data.cache), recipe, options.seed)
    correct = None if data.val is None else int((logits(data.val).argmax(dim=1) == data.val.labels).sum())
    return Fitted({"ratio": RATIO}, logits, correct, facts)


def epochs_for(data: FewShotData) -> int:
    """As many as CoOp takes for the number of shots: that of the class with most images."""
    if data.dataset == "ImageNet":
        return IMAGENET_EPOCHS
    shots = int(torch.bincount(data.cache.labels).max())
    return next(epochs for least, epochs in EPOCHS if shots >= least)


METHOD = Method(
    "clip_adapter",
    "a bottleneck trained behind the image tower and mixed into its features",
    "Gao et al., IJCV 2024 (arXiv:2110.04544)",
    needs_adapter=False,
    trains=True,
    fit=clip_adapter,
)
