"""Time of encoding prompts: cut behind the last end-of-text token, against open_clip's full context.

    python -m benchmarks.text
    python -m benchmarks.text --model tiny --prompts 397

The weights do not matter for speed, so the default draws them: ViT-B-32-quickgelu/random, the text tower of `clip`.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.timing import seconds_alternating
from common.cli import Parser, run


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder whose text tower is timed")
    parser.add_argument("--prompts", type=int, default=64, help="prompts in a batch, of 7 to 12 tokens as class prompts are")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way; the median is shown")
    return parser.parse_args()


def main() -> None:
    """Time both ways and compare what they give."""
    args = parse_arguments()
    from models.loading import load_encoder

    encoder = load_encoder(args.model)
    prompts = [f"a photo of the number {number}, a kind of thing"[: 30 + number % 18] for number in range(args.prompts)]
    full = encoder._tokenizer(prompts)
    cut = encoder.tokenize(prompts)
    with torch.inference_mode():
        ways = {"full": lambda: encoder.model.encode_text(full), "cut": lambda: encoder.text_tower.encode(cut)}
        seconds = seconds_alternating(ways, args.repeats)
        difference = (ways["full"]() - ways["cut"]()).abs().max().item()
    print(f"{args.model}: {args.prompts} prompts, {args.repeats} runs each, {torch.get_num_threads()} threads, float32\n")
    print(f"{'way':6}{'tokens':>8}{'median s':>10}{'prompts/s':>11}")
    for name, tokens in (("full", full), ("cut", cut)):
        print(f"{name:6}{tokens.shape[1]:8}{seconds[name]:10.3f}{args.prompts / seconds[name]:11.1f}")
    print(f"\ncut is {seconds['full'] / seconds['cut']:.1f} times faster; greatest difference of a feature {difference:.1e}")


if __name__ == "__main__":
    run(main)
