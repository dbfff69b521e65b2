"""The published protocol of OTI and OVI (Mistretta et al., Cross the Gap, ICLR 2025). Nothing here imports torch."""

from __future__ import annotations

import re

STEPS = {"oti": 150, "ovi": 1000}
TEMPLATE = "a photo of {}"  # of OVI for the names of classes only: other texts are inverted as they are
LEARNING_RATE = 2e-2
WEIGHT_DECAY = 0.01
SEED = 42
PSEUDO_PATCHES = (  # by architecture and weights; 1 for all others
    (r"ViT-L-14(-quickgelu)?/openai", 4),
    (r"ViT-L-14(-quickgelu)?/.*", 2),
    (r"ViT-B-16-SigLIP/.*", 4),
    (r"SLIP-ViT-L-16/.*", 2),
)


def pseudo_patches(model: str) -> int:
    """The published number of pseudo-patches (P) of OVI for ``ARCHITECTURE/WEIGHTS``, 1 for all that were not published."""
    return next((number for pattern, number in PSEUDO_PATCHES if re.fullmatch(pattern, model)), 1)
