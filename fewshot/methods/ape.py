"""APE: Tip-Adapter on the channels that tell classes apart, with labelled images weighted by how unexpected they are."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.affine import Affine, AffineModel, image_by_image
from fewshot.cache import Cache, sharpened
from fewshot.channels import channels_kept, on_channels, select_channels, surprise
from fewshot.data import Features, FewShotData
from fewshot.method import Fitted, with_corrected
from fewshot.options import FewShotOptions
from fewshot.published import ape_fixed, ape_grid, ape_scale
from fewshot.search import fitted


def ape(data: FewShotData, options: FewShotOptions, corrected: bool) -> Fitted:
    """logits = Z + alpha exp(-beta (1 - f' F'ᵀ)) diag(g) V, with f' and F' unit rows of the chosen channels, g = exp(gamma log2(1/p)).

    Z is of all channels. Channels and g are chosen by original features even if f' and F' are adapted, ``corrected``: they compare
    images with texts. Source: Zhu et al., ICCV 2023; the corrected version is this project's.
    """
    scale = ape_scale(data.dataset)
    count = channels_kept(scale.channels, data.classifier.shape[1])
    channels = select_channels(data.classifier, data.cache.original, data.cache.labels, scale.weights, count)
    model = ape_model(data, channels, corrected, options.as_released)
    return fitted(model, data, options, ape_grid(data.dataset), ape_fixed(data.dataset), {"channels": count})


def ape_model(data: FewShotData, channels: Tensor, corrected: bool, as_released: bool = False) -> AffineModel:
    """APE on ``channels`` [Q]."""
    labels = data.cache.labels
    cache = Cache(on_channels(data.cache.among_images(corrected), channels), labels, data.classes)
    texts, keys = on_channels(data.classifier, channels), on_channels(data.cache.original, channels)
    bits = surprise(texts, keys, labels, as_released)[cache.order, None]

    def of(images: Features) -> Affine:
        affinity = cache.affinity(on_channels(images.among_images(corrected), channels))
        values, weighted = torch.empty_like(affinity), torch.empty_like(affinity)
        of_beta = [float("nan")]

        def slope(beta: float, gamma: float) -> Tensor:
            if beta != of_beta[0]:  # the gammas of a beta follow one another
                sharpened(affinity, beta, values)
                of_beta[0] = beta
            return cache.class_sums(torch.mul(values, bits.mul(gamma).exp_(), out=weighted))

        return Affine(data.zero_shot(images), slope)

    return image_by_image(of)


METHODS = with_corrected(
    "ape",
    "Tip-Adapter on the channels that tell classes apart; labelled images count by how unexpected their label is",
    "Zhu et al., ICCV 2023 (arXiv:2304.01195)",
    ape,
)
