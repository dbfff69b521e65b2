"""Time of encoding prompts: cut behind the last end-of-text token, against open_clip's full context.

    python -m benchmarks.text
    python -m benchmarks.text --model tiny --prompts 397

The weights do not matter for speed, so the default draws them: ViT-B-32-quickgelu/random, the text tower of `clip`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.work import Way, Work, add_measuring_arguments, within
from common.arguments import positive_int
from common.cli import Parser


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder whose text tower is timed")
    parser.add_argument("--prompts", type=positive_int, default=64, help="prompts in a batch, of 7 to 12 tokens as class prompts are")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """The row."""
    plain, ours = (partial(prepare, args.model, args.prompts, cut) for cut in (False, True))
    name = f"encode {args.prompts} prompts, {args.model}"
    yield Work(name, "the full context of 77 tokens", plain, ours, partial(within, 1e-4, "features"), args.repeats)


def prepare(model: str, count: int, cut: bool) -> Way:
    """The whole text tower, or as much of the context as the prompts fill; float32."""
    import torch

    from models.loading import load_encoder

    encoder = load_encoder(model)
    prompts = [f"a photo of the number {number}, a kind of thing"[: 30 + number % 18] for number in range(count)]
    tokens = encoder.tokenize(prompts) if cut else encoder._tokenizer(prompts)
    encode: Any = encoder.text_tower.encode if cut else encoder.model.encode_text

    def way() -> Any:
        with torch.inference_mode():
            return encode(tokens).numpy()

    return way


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
