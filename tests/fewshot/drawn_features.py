"""Features around the means of their classes, for tests of few-shot methods."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewshot.data import Features, FewShotData


def draw(
    classes: int = 7, shots: int | list[int] = 4, val: int = 60, dim: int = 32, noise: float = 0.3, seed: int = 0, dataset: str = ""
) -> FewShotData:
    """Data with adapted features; ``shots`` is one number, or one for each class. Labelled images come in no order."""
    generator = torch.Generator().manual_seed(seed)
    means = normalize(torch.randn(classes, dim, generator=generator), dim=1)

    def side(labels: Tensor) -> Features:
        shuffled = labels[torch.randperm(len(labels), generator=generator)]
        rows = [
            normalize(means[shuffled] + part * noise * torch.randn(len(labels), dim, generator=generator), dim=1) for part in (1.0, 0.7)
        ]
        return Features(rows[0], rows[1], shuffled)

    counts = torch.tensor([shots] * classes if isinstance(shots, int) else shots)
    texts = normalize(means + noise * torch.randn(means.shape, generator=generator), dim=1)
    drawn = [side(torch.randint(classes, (count,), generator=generator)) for count in (val, 43)]
    return FewShotData(side(torch.arange(classes).repeat_interleave(counts)), *drawn, texts, dataset=dataset)


def one_hot(data: FewShotData) -> Tensor:
    """V [M, C]."""
    return torch.nn.functional.one_hot(data.cache.labels, data.classes).float()


def correct(logits: Tensor, labels: Tensor) -> int:
    """Images that argmax classifies right."""
    return int((logits.argmax(dim=1) == labels).sum())
