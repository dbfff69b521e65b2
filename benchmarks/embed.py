"""Throughput of get_embeddings.py from JPEG files, against the bare forward pass of the same image tower.

    python -m benchmarks.embed
    python -m benchmarks.embed --model tiny --images 2000
    python -m benchmarks.embed --model clip --images 20000 --precision bf16 --num-workers 16     # with a GPU

Draws a folder of JPEG files, embeds it as the command does (reading, decoding, preprocessing, collating, encoding, copying
back; files are hashed meanwhile), and in turn runs only the encoder on one ready batch as often. The ratio is what is left of
the model's own speed. The default model has drawn weights, which do not matter for speed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import seconds_alternating
from common.arguments import PRECISIONS, positive_int
from common.cli import Parser, run


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu/random", help="the encoder")
    parser.add_argument("--images", type=positive_int, default=512, help="JPEG files to embed")
    parser.add_argument("--width", type=positive_int, default=500, help="of the files; they are 3/4 as high")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="images per batch")
    parser.add_argument("--num-workers", type=int, default=4, help="processes that decode")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the towers")
    parser.add_argument("--repeats", type=positive_int, default=3, help="runs of each way; the median is shown")
    return parser.parse_args()


def draw_folder(folder: Path, count: int, width: int) -> None:
    """``count`` JPEG files in two classes: smooth noise, which compresses about as photographs do."""
    generator = np.random.default_rng(0)
    for number in range(count):
        target = folder / ("ab"[number % 2])
        target.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (width // 12, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(target / f"{number:06}.jpg", quality=90)


def main() -> None:
    """Time both ways."""
    args = parse_arguments()
    from datasets.registry import load_task
    from engine.embed import LoadOptions, embed_task
    from engine.runtime import start
    from models.selection import select_encoder

    runtime = start(precision=args.precision)
    selection = select_encoder(args.model, None, {})
    encoder = selection.encoder.to(runtime.device)
    options = LoadOptions(args.batch_size, args.num_workers)
    batch = torch.rand(args.batch_size, 3, encoder.image_size, encoder.image_size, device=runtime.device)

    def bare() -> None:
        with torch.inference_mode(), runtime.autocast():
            for start_at in range(0, args.images, args.batch_size):
                encoder.encode_image(batch[: args.images - start_at])
            if runtime.device.type == "cuda":
                torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        draw_folder(Path(folder) / "train", args.images, args.width)
        # One photo in a hundred goes to validation, as in the command; the two must do the same work.
        task = load_task(f"imagefolder:{folder}", "train", val_p=0.01)
        args.images = len(task)
        ways = {"bare forward": bare, "end to end": lambda: embed_task(runtime, selection, task, options)}
        seconds = seconds_alternating(ways, args.repeats)
    print(f"{args.model} on {runtime.device.type}, {runtime.precision}, {torch.get_num_threads()} threads, {args.num_workers} workers")
    print(f"{args.images} JPEG files of {args.width} x {args.width * 3 // 4}, batches of {args.batch_size}, {args.repeats} runs each\n")
    for name, value in seconds.items():
        print(f"{name:14}{value:9.2f} s{args.images / value:10.1f} images/s")
    print(f"\nratio {seconds['bare forward'] / seconds['end to end']:.3f}")


if __name__ == "__main__":
    run(main)
