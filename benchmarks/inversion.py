"""Time of one optimisation step of OTI: full context, cut behind end-of-text, and with the constant words computed once.

    python -m benchmarks.inversion
    python -m benchmarks.inversion --model tiny --batch 512 --tokens 4 --steps 20

A step is what the optimisation does: features of the pseudo-tokens, loss, gradient, AdamW. The weights do not matter for
speed, so the default draws them: ViT-B-32-quickgelu/random, the text tower of `clip`. All three ways start from the same
pseudo-tokens; their losses are compared step by step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.timing import seconds_alternating
from common.cli import Parser, run

FORMS = ("full", "cut", "cached")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder whose text tower is timed")
    parser.add_argument("--batch", type=int, default=64, help="items that are optimised together")
    parser.add_argument("--tokens", type=int, default=1, help="pseudo-tokens of an item")
    parser.add_argument("--steps", type=int, default=5, help="steps of each way, which take turns; the median is shown")
    parser.add_argument("--template", default="a photo of {}", help="the sentence, with the place of the pseudo-tokens")
    return parser.parse_args()


def main() -> None:
    """Time the three ways and compare their losses."""
    args = parse_arguments()
    import torch

    from inversion.pseudo_text import PseudoText
    from models.loading import load_encoder

    encoder = load_encoder(args.model)
    forms = FORMS if encoder.text_tower.is_causal else ("full", "cached")
    towers = {form: PseudoText(encoder, args.template, args.tokens, form) for form in forms}
    losses: dict[str, list[float]] = {form: [] for form in forms}
    steps = {form: optimiser(tower, args.batch, losses[form]) for form, tower in towers.items()}
    seconds = seconds_alternating(steps, args.steps)
    print(f"{args.model}: {args.batch} items of {args.tokens} pseudo-tokens in '{args.template}', {args.steps} steps each,")
    print(f"{torch.get_num_threads()} threads, float32\n")
    print(f"{'way':8}{'median ms a step':>18}{'times faster':>14}{'greatest difference of a loss':>31}")
    for form in forms:
        difference = max(abs(one - other) for one, other in zip(losses["full"], losses[form], strict=True))
        print(f"{form:8}{1000 * seconds[form]:18.1f}{seconds['full'] / seconds[form]:14.1f}{difference:31.1e}")
    print(f"\nmean loss of the first and of the last step: {losses['full'][0]:.4f}, {losses['full'][-1]:.4f}")


def optimiser(tower: object, batch: int, losses: list[float]) -> Callable[[], None]:
    """One step of optimising random pseudo-tokens towards random targets, which appends its loss to ``losses``."""
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    tokens = (0.02 * torch.randn(batch, *tower.shape, generator=generator)).requires_grad_(True)
    targets = F.normalize(torch.randn(batch, tower.encoder.embed_dim, generator=generator), dim=-1)
    adam = torch.optim.AdamW([tokens], lr=2e-2, weight_decay=0.01)

    def step() -> None:
        loss = (1 - (tower.features(tokens) * targets).sum(dim=1)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())

    return step


if __name__ == "__main__":
    run(main)
