"""APE-T: a residual for each class on chosen channels, added to its text and its keys, and a weight for each labelled image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.affine import Affine, AffineModel, Point, image_by_image
from fewshot.cache import Cache, sharpened
from fewshot.channels import channels_kept, select_channels
from fewshot.data import Features, FewShotData
from fewshot.learning import Facts, Recipe, learn
from fewshot.method import Fitted, with_corrected
from fewshot.options import FewShotOptions
from fewshot.published import ape_fixed, ape_grid
from fewshot.search import fitted

WEIGHTS = (0.2, 0.8)  # of similarity and variance in the choice of channels
RECIPE = Recipe(lr=1e-3, batch_size=256, epochs=30, wd=0.1, eps=1e-3)


class Training(NamedTuple):
    """What differs between data sets; ``channels`` of 1024."""

    channels: int
    lr: float
    epochs: int
    eps: float = 1e-3


# Zhu et al., ICCV 2023: the configuration files of the released code, for ResNet-50; others have the commonest values.
APE_T = {
    "Caltech101": Training(900, 1e-3, 30),
    "DTD": Training(800, 1e-3, 20),
    "EuroSAT": Training(900, 1e-3, 200),
    "FGVCAircraft": Training(900, 1e-3, 30),
    "Food101": Training(900, 1e-4, 30),
    "ImageNet": Training(500, 1e-4, 20),
    "Flowers102": Training(800, 1e-3, 60),
    "OxfordPets": Training(800, 1e-4, 30, eps=2e-3),
    "Cars": Training(500, 1e-3, 30),
    "SUN397": Training(800, 1e-4, 30),
    "UCF101": Training(800, 1e-3, 30, eps=2e-3),
}
OTHER = Training(900, 1e-3, 30)


@dataclass(eq=False)
class Refined:
    """What is learnt: ``residual`` [C, Q] on ``channels`` [Q], 0 at first, and ``weights`` [M, 1] of the images, 1 at first."""

    data: FewShotData
    corrected: bool
    channels: Tensor

    def __post_init__(self) -> None:
        data, labels = self.data, self.data.cache.labels
        self.cache = Cache(data.cache.among_images(self.corrected), labels, data.classes)
        self.residual = data.classifier.new_zeros(data.classes, len(self.channels))
        self.weights = data.classifier.new_ones(len(labels), 1)  # in the order of the cache

    def affine(self, images: Features) -> Affine:
        """Logits of ``images``; differentiable in what is learnt."""
        widened = torch.zeros_like(self.data.classifier).index_copy(1, self.channels, self.residual)
        base = self.data.logit_scale * images.original @ (self.data.classifier + widened).T
        affinity = (self.cache.keys + widened[self.cache.labels]) @ images.among_images(self.corrected).T
        return Affine(base, lambda beta, gamma: self.cache.class_sums(sharpened(affinity, beta) * self.weights))

    @property
    def model(self) -> AffineModel:
        """The classifier, for the search."""
        return image_by_image(self.affine)


def ape_t(data: FewShotData, options: FewShotOptions, corrected: bool) -> Fitted:
    """logits = 100 f (W + R)ᵀ + alpha exp(-beta (1 - f (F + V R)ᵀ)) diag(g) V, with R [C, D] that is 0 but on the chosen channels.

    R and g [M] are learnt by the cross-entropy of the labelled images at the published alpha and beta; then alpha and beta are
    searched. Neither W + R nor the keys are brought to unit length, as released. If ``corrected``, f and F in the second term are
    adapted ones; channels are chosen by original ones, and the first term is of them. What is learnt after the last epoch is
    used: the released code takes the best epoch on validation images, and crops the images anew in each. Source: Zhu et al.,
    ICCV 2023, and the released code; the corrected version is this project's.
    """
    training = APE_T.get(data.dataset, OTHER)
    count = channels_kept(training.channels, data.classifier.shape[1])
    channels = select_channels(data.classifier, data.cache.original, data.cache.labels, WEIGHTS, count)
    refined = Refined(data, corrected, channels)
    recipe = replace(RECIPE, lr=training.lr, epochs=training.epochs, eps=training.eps)
    fixed = ape_fixed(data.dataset)._replace(gamma=0.0)
    facts = refine(refined, fixed, recipe, options.seed)
    grid = replace(ape_grid(data.dataset), gammas=(0.0,))
    return fitted(refined.model, data, options, grid, fixed, {"channels": count, **facts})


def refine(refined: Refined, point: Point, recipe: Recipe, seed: int) -> Facts:
    """Learn residuals and weights at ``point``."""
    images = refined.data.cache

    def loss(rows: Tensor) -> Tensor:
        some = images[rows]
        return F.cross_entropy(refined.affine(some).at(point), some.labels)

    return learn([refined.residual, refined.weights], loss, len(images), recipe, seed)


METHODS = with_corrected(
    "ape_t",
    "zero-shot logits and Tip-Adapter, both refined by a learnt residual for each class, and a learnt weight for each labelled image",
    "Zhu et al., ICCV 2023 (arXiv:2304.01195)",
    ape_t,
    trains=True,
)
