"""The Classifier: an encoder and the prompts of a task, as logits over its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoder import Encoder
from models.tunings import text_tower_is_frozen

PROMPTS_PER_PASS = 256  # bounds the memory of a frozen text tower; prompts of one pass are cut to their common length


def frozen_text_features(encoder: Encoder, prompts: Sequence[str]) -> Tensor:
    """The text tower's unit vectors [P, D] of ``prompts``, without gradient, float32."""
    with torch.no_grad():
        parts = [
            encoder.text_features(encoder.tokenize(prompts[start : start + PROMPTS_PER_PASS])).float()
            for start in range(0, len(prompts), PROMPTS_PER_PASS)
        ]
    return torch.cat(parts)


def average_templates(embeddings: Tensor, templates: int) -> Tensor:
    """One unit vector per class [C, D] from the prompts' unit vectors [C * templates, D]: their mean, normalised."""
    if templates == 1:
        return embeddings
    return F.normalize(embeddings.unflatten(0, (-1, templates)).mean(dim=1), dim=-1)


class Classifier(nn.Module):
    """Logits of images over the classes of one task.

    The class embeddings come from the text tower in every step while it trains; once, at the start, when it is frozen. A
    probe takes their place when the encoder has one.
    """

    def __init__(self, encoder: Encoder, prompts: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.templates = len(prompts[0])
        flat = [prompt for of_class in prompts for prompt in of_class]
        self.text_features: Tensor | None
        self.tokens: Tensor | None
        frozen, needed = text_tower_is_frozen(encoder), encoder.probe is None
        self.register_buffer("text_features", frozen_text_features(encoder, flat) if frozen and needed else None, persistent=False)
        self.register_buffer("tokens", encoder.tokenize(flat) if needed and not frozen else None, persistent=False)

    def class_embeddings(self) -> Tensor:
        """Unit text embeddings [C, D], with gradient where the text side trains."""
        if self.text_features is None:
            assert self.tokens is not None
            features = self.encoder.text_features(self.tokens)
        else:
            features = self.text_features
        return average_templates(self.encoder.adapt_text(features), self.templates)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C] of ``images``: pixels [B, 3, H, W], or the frozen tower's features [B, D] computed before."""
        features = images if images.ndim == 2 else self.encoder.image_features(images)
        return self.classify(self.encoder.adapt_image(features), None)

    def classify(self, image_embeddings: Tensor, class_embeddings: Tensor | None) -> Tensor:
        """Logits [B, C] of unit image embeddings; ``class_embeddings`` spares computing them anew."""
        if self.encoder.probe is not None:
            with torch.autocast(image_embeddings.device.type, enabled=False):  # see Encoder.logits
                return self.encoder.probe(image_embeddings)
        texts = self.class_embeddings() if class_embeddings is None else class_embeddings
        return self.encoder.logits(image_embeddings, texts)
