"""Tip-X: Tip-Adapter, and for each class how little its labelled images diverge from the image in what they say about the classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.affine import Affine, AffineModel, Rows, tiles
from fewshot.cache import Cache
from fewshot.data import Features, FewShotData
from fewshot.method import Fitted, with_corrected
from fewshot.options import FewShotOptions
from fewshot.published import tip_x_fixed, tip_x_grid
from fewshot.search import fitted

TEMPERATURE = 0.5  # of cosines, not of logits: the distributions are nearly flat


class Scale(NamedTuple):
    """The least and greatest divergence D and affinity A of some images and all keys: D is brought to the range of A."""

    least_divergence: float
    greatest_divergence: float
    least_affinity: float
    greatest_affinity: float

    @property
    def factor(self) -> float:
        """(max A - min A) / (max D - min D); 0 where all divergences are the same."""
        divergences = self.greatest_divergence - self.least_divergence
        return (self.greatest_affinity - self.least_affinity) / divergences if divergences > 0 else 0.0


class Divergence:
    """D_ij = KL(P_i || Q_j) of what images and keys say about the classes: P = softmax(f Wᵀ / 0.5), of original features.

    D_ij = sum_c P_ic log P_ic - sum_c P_ic log Q_jc is one matrix product, and its sum over the keys of a class another, with
    log Q summed over them. Since the distributions are nearly flat, both terms are close to log C and their difference is small; so
    the mean of log Q is taken off both logarithms before, which leaves D as it is and the digits in place.
    """

    def __init__(self, data: FewShotData) -> None:
        self.texts = data.classifier
        log_q = self._log_shares(data.cache.original)
        self.mean = log_q.mean(dim=1, keepdim=True) if len(data.cache) else 0.0
        self.log_q = (log_q - self.mean).T  # [M, C]
        self.sizes = torch.bincount(data.cache.labels, minlength=data.classes)[:, None]
        self.class_log_q = torch.zeros(data.classes, data.classes, device=log_q.device).index_add_(0, data.cache.labels, self.log_q)

    def _log_shares(self, images: Tensor) -> Tensor:
        """log P [C, n]."""
        return (self.texts @ images.T).div_(TEMPERATURE).log_softmax(dim=0)

    def _terms(self, images: Features) -> tuple[Tensor, Tensor]:
        """P [C, n] and sum_c P_c (log P_c - mean) [n]."""
        log_p = self._log_shares(images.original)
        p = log_p.exp()
        return p, p.mul(log_p - self.mean).sum(dim=0)

    def to_keys(self, images: Features) -> Tensor:
        """D, transposed: [M, n], keys in the order of the data."""
        p, own = self._terms(images)
        return own - self.log_q @ p

    def to_classes(self, images: Features) -> Tensor:
        """For each class the sum of D over its keys, transposed: [C, n]."""
        p, own = self._terms(images)
        return own * self.sizes - self.class_log_q @ p


def tip_x(data: FewShotData, options: FewShotOptions, corrected: bool) -> Fitted:
    """logits = Z + alpha exp(-beta (1 - A)) V - gamma M V, with A = f Fᵀ, adapted if ``corrected``.

    M is the divergence D, always of original features, brought to the range of A. The ranges are those of the validation images and
    the keys (of the keys among themselves where there are none), so that the logits of an image depend on no other image. As
    released, they are those of whatever images are classified together. Source: Udandarao et al., SuS-X, ICCV 2023;
    corrected: Kravets and Namboodiri, BMVC 2024.
    """
    model = tip_x_model(data, corrected, options.as_released)
    return fitted(model, data, options, tip_x_grid(options.grid), tip_x_fixed(data.dataset))


def tip_x_model(data: FewShotData, corrected: bool, as_released: bool) -> AffineModel:
    """Tip-X; as released, it looks at all images that it is given before it classifies any."""
    cache = Cache(data.cache.among_images(corrected), data.cache.labels, data.classes)
    divergence = Divergence(data)

    def scale_of(images: Features | None) -> Scale:
        return range_among_keys(data, divergence, corrected) if not images else range_to_keys(images, cache, divergence, corrected)

    frozen = None if as_released else scale_of(data.val)

    def model(images: Features) -> Rows:
        scale = scale_of(images) if frozen is None else frozen
        return lambda rows: _affine(data, images[rows], cache, divergence, scale, corrected)

    return model


def _affine(data: FewShotData, images: Features, cache: Cache, divergence: Divergence, scale: Scale, corrected: bool) -> Affine:
    affinity = cache.affinity(images.among_images(corrected))
    room = torch.empty_like(affinity)
    rescaled = divergence.to_classes(images).sub_(scale.least_divergence * divergence.sizes).mul_(scale.factor)
    shift = rescaled.add_(scale.least_affinity * divergence.sizes).neg_()
    return Affine(data.zero_shot(images), lambda beta, gamma: cache.similarity(affinity, beta, room), shift.T)


def range_to_keys(images: Features, cache: Cache, divergence: Divergence, corrected: bool) -> Scale:
    """The ranges of D and A over ``images`` and all keys, tile by tile."""
    ends = []
    for rows in tiles(len(images), len(cache), images.labels.device):
        some = images[rows]
        ends.append(_ends(divergence.to_keys(some), cache.affinity(some.among_images(corrected))))
    return _joined(torch.stack(ends))


def range_among_keys(data: FewShotData, divergence: Divergence, corrected: bool) -> Scale:
    """The same over pairs of keys, none with itself; 0 to 0 where there is only one."""
    keys, ends = data.cache.among_images(corrected), []
    if len(keys) < 2:
        return Scale(0.0, 0.0, 0.0, 0.0)
    for rows in tiles(len(keys), len(keys), keys.device):
        itself = torch.arange(len(keys), device=keys.device)[:, None] == torch.arange(rows.start, rows.stop, device=keys.device)
        pairs = ~itself
        ends.append(_ends(divergence.to_keys(data.cache[rows])[pairs], (keys @ keys[rows].T)[pairs]))
    return _joined(torch.stack(ends))


def _ends(divergences: Tensor, affinities: Tensor) -> Tensor:
    return torch.stack([divergences.amin(), divergences.amax(), affinities.amin(), affinities.amax()])


def _joined(ends: Tensor) -> Scale:
    """The ranges of all tiles from those of each [tiles, 4]."""
    least, greatest = ends.amin(dim=0).tolist(), ends.amax(dim=0).tolist()
    return Scale(least[0], greatest[1], least[2], greatest[3])


METHODS = with_corrected(
    "tip_x",
    "Tip-Adapter, and how little the labelled images of each class diverge from the image in their zero-shot distributions",
    "Udandarao et al., ICCV 2023 (arXiv:2211.16198)",
    tip_x,
)
