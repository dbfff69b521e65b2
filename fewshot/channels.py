"""APE's choice of channels, and how much each labelled image counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.published import APE_WIDTH

SMOOTHING = 1e-6  # of probabilities in the released code


def class_similarity(classifier: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
    """S_d: the mean product of channel d of two members of different classes, [D]; members are the text and the keys of a class.

    With the sums t_c over the m_c members of each class, S = ((sum_c t_c)² - sum_c t_c²) / ((sum_c m_c)² - sum_c m_c²), over
    pairs of members; classes with more keys count more. ``classifier`` [C, D], ``keys`` [M, D], ``labels`` [M]; computed in
    float64. Source: Zhu et al., APE, ICCV 2023.
    """
    sums = classifier.double().index_add(0, labels, keys.double())
    sizes = 1 + torch.bincount(labels, minlength=len(classifier)).double()
    pairs = sizes.sum() ** 2 - (sizes**2).sum()
    return (sums.sum(dim=0) ** 2 - (sums**2).sum(dim=0)) / pairs


def select_channels(classifier: Tensor, keys: Tensor, labels: Tensor, weights: tuple[float, float], count: int) -> Tensor:
    """The ``count`` channels of greatest J_d = -w_0 S_d + w_1 Var_c(W_cd), int64 [count], the best first.

    So classes are unlike in them, and texts of classes differ. The variance is the unbiased one. Source: APE.
    """
    similarity = class_similarity(classifier, keys, labels)
    score = weights[1] * classifier.double().var(dim=0) - weights[0] * similarity
    return score.argsort(descending=True, stable=True)[:count]


def channels_kept(published: int, width: int) -> int:
    """How many of ``width`` channels: the share that was published for embeddings of 1024.

    >>> channels_kept(700, 512)
    350
    """
    return max(1, round(published * width / APE_WIDTH))


def on_channels(features: Tensor, channels: Tensor) -> Tensor:
    """Unit rows of some channels of ``features`` [N, D]: [N, Q]."""
    return F.normalize(features[:, channels], dim=1)


def surprise(classifier: Tensor, keys: Tensor, labels: Tensor, as_released: bool = False) -> Tensor:
    """log2(1 / p_j) of each key [M]: bits by which zero-shot classification, softmax(F_j Wᵀ) without temperature, misses its label.

    The values of the cache are multiplied by exp(gamma * this). As released, log2((1 + 1e-6) / (p_j + 1e-6)). Source: APE.
    """
    log_p = (keys @ classifier.T).log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    if as_released:
        return torch.log2((1 + SMOOTHING) / (log_p.exp() + SMOOTHING))
    return -log_p / torch.log(torch.tensor(2.0))
