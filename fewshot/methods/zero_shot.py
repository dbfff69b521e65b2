"""Zero-shot classification: the cosines of images and class texts, without any labelled image."""

from __future__ import annotations

from fewshot.data import FewShotData
from fewshot.method import Fitted, Method
from fewshot.options import FewShotOptions


def zero_shot(data: FewShotData, options: FewShotOptions) -> Fitted:
    """Z = 100 f Wᵀ. Source: Radford et al., CLIP, ICML 2021."""
    correct = None if not data.val else int((data.zero_shot(data.val).argmax(dim=1) == data.val.labels).sum())
    return Fitted({}, data.zero_shot, correct)


METHOD = Method(
    "zero_shot",
    "cosines of images and class texts; no labelled image",
    "Radford et al., ICML 2021 (arXiv:2103.00020)",
    needs_adapter=False,
    trains=False,
    fit=zero_shot,
)
