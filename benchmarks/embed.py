"""Time of get_embeddings.py from JPEG files, against the bare forward pass of the same image tower.

    python -m benchmarks.embed
    python -m benchmarks.embed --model tiny --images 2000
    python -m benchmarks.embed --model clip --images 20000 --precision bf16 --num-workers 16     # with a GPU

Draws a folder of JPEG files, embeds it as the command does (reading, decoding, preprocessing, collating, encoding, copying
back; files are hashed meanwhile), and in turn runs only the encoder on ready batches as often. A ratio of 1 says that images are
embedded at the model's own speed; above it lies nothing but the machine's unrest. The processes that decode are not in the
memory shown. The default model has drawn weights, which do not matter for speed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.work import Way, Work, add_measuring_arguments, within
from common.arguments import PRECISIONS, count, positive_int
from common.cli import Parser

READY = 4  # batches of pixels that the bare forward pass holds, and goes through again and again


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder")
    parser.add_argument("--images", type=positive_int, default=128, help="JPEG files to embed")
    parser.add_argument("--width", type=positive_int, default=500, help="of the files; they are 3/4 as high")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="images per batch")
    parser.add_argument("--num-workers", type=count, default=2, help="processes that decode")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the towers")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """The row, while its files are there."""
    with tempfile.TemporaryDirectory() as folder:
        draw_folder(Path(folder) / "test", args.images, args.width)
        plain, ours = (partial(prepare, args, f"imagefolder:{folder}", bare) for bare in (True, False))
        name = f"embed {args.images} JPEG files of {args.width} x {args.width * 3 // 4}, {args.model}"
        limit = 0.05 if args.precision != "fp32" else 1e-4  # bf16 rounds batches of other sizes otherwise
        yield Work(name, "the forward pass alone", plain, ours, partial(within, limit, "embeddings"), args.repeats, first_counts=True)


def draw_folder(folder: Path, count: int, width: int) -> None:
    """``count`` JPEG files in two classes: smooth noise, which compresses about as photographs do."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        target = folder / ("ab"[number % 2])
        target.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (width // 12, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(target / f"{number:06}.jpg", quality=90)


def prepare(args: argparse.Namespace, dataset: str, bare: bool) -> Way:
    """Either way; both give the embeddings of the batches that the bare one holds."""
    from datasets.registry import load_task
    from engine.embed import LoadOptions, embed_task
    from engine.runtime import start
    from models.selection import select_encoder

    runtime = start(precision=args.precision)
    selection = select_encoder(args.model, None, {})
    selection.encoder.to(runtime.device)
    task, options = load_task(dataset, "test"), LoadOptions(args.batch_size, args.num_workers)
    if bare:
        return forward_only(runtime, selection.encoder, task, options)
    return lambda: embed_task(runtime, selection, task, options)[0].image_embeddings[: READY * args.batch_size]


def forward_only(runtime: Any, encoder: Any, task: Any, options: Any) -> Way:
    """The encoder on as many batches as the task has, with the pixels of the first ones."""
    import torch

    from engine.embed import batches_of
    from engine.loading import SkippedImages

    ready = [batch.pixels for batch in islice(batches_of(runtime, encoder, task, options, SkippedImages(0)), READY)]

    def way() -> Any:
        with torch.inference_mode(), runtime.autocast():
            batches = islice(cycle(ready), -(-len(task) // options.batch_size))
            features = [encoder.encode_image(pixels) for pixels in batches]
            return torch.cat(features[: len(ready)]).float().cpu().numpy()

    return way


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
