"""Time of one optimisation step of OTI: the full context, against what changes: cut behind end-of-text, constant words computed once.

    python -m benchmarks.inversion
    python -m benchmarks.inversion --model tiny --batch 512 --tokens 4 --ours cut cached

A step is what the optimisation does: features of the pseudo-tokens, loss, gradient, AdamW. The weights do not matter for
speed, so the default draws them: ViT-B-32-quickgelu/random, the text tower of `clip`. Both ways start from the same
pseudo-tokens; their losses are compared step by step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.work import Way, Work, add_measuring_arguments, said
from common.arguments import positive_int
from common.cli import Parser

FORMS = {"cut": "cut behind end-of-text", "cached": "cut, constant words once"}


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder whose text tower is timed")
    parser.add_argument("--batch", type=positive_int, default=64, help="items that are optimised together")
    parser.add_argument("--tokens", type=positive_int, default=1, help="pseudo-tokens of an item")
    parser.add_argument("--template", default="a photo of {}", help="the sentence, with the place of the pseudo-tokens")
    parser.add_argument("--ours", nargs="+", choices=tuple(FORMS), default=["cached"], help="a row each; `cut` needs a causal text tower")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """A row for each of our forms."""
    plain = partial(prepare, args.model, args.template, args.tokens, args.batch, "full")
    for form in args.ours:
        name = f"a step of OTI, {args.batch} images, R = {args.tokens}, {args.model}"
        ours = partial(prepare, args.model, args.template, args.tokens, args.batch, form)
        yield Work(f"{name} ({FORMS[form]})", "the full context", plain, ours, losses_agree, args.repeats)


def losses_agree(plain: list[float], ours: list[float]) -> str:
    """How far the losses of any step are apart."""
    return said(1e-4, "losses", max(abs(one - other) for one, other in zip(plain, ours, strict=True)))


def prepare(model: str, template: str, tokens: int, batch: int, form: Any) -> Way:
    """Steps of optimising random pseudo-tokens towards random targets; each gives the losses until now."""
    import torch
    from torch.nn import functional as F

    from inversion.pseudo_text import PseudoText
    from models.loading import load_encoder

    tower = PseudoText(load_encoder(model), template, tokens, form)
    generator = torch.Generator().manual_seed(0)
    v = (0.02 * torch.randn(batch, *tower.shape, generator=generator)).requires_grad_(True)
    targets = F.normalize(torch.randn(batch, tower.encoder.embed_dim, generator=generator), dim=-1)
    adam, losses = torch.optim.AdamW([v], lr=2e-2, weight_decay=0.01), []

    def step() -> list[float]:
        loss = (1 - (tower.features(v) * targets).sum(dim=1)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        return losses

    return step


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
