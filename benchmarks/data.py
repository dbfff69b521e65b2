"""Images per second from files and arrays to what the image tower takes, against Pillow and torchvision's plain transform.

    python -m benchmarks.data
    python -m benchmarks.data --images 64 --side 224 --photos FOLDER

Each way runs in one process with one thread, in turn, and the median of the runs is shown. "Plain" is what open_clip and
most training code does: Image.open, convert, Resize, CenterCrop, ToTensor, Normalize for every image. Beside the speed stands
the likeness of the embeddings: the least cosine between the two ways, by the tiny model (real weights) and by a ViT-B/32 with drawn
weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import seconds_alternating
from common.arguments import positive_int
from common.cli import Parser, run

MODELS = ("tiny", "ViT-B-32-quickgelu/random")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=64, help="files of each size")
    parser.add_argument("--arrays", type=positive_int, default=512, help="images of each raw set")
    parser.add_argument("--side", type=positive_int, default=224, help="what the image tower takes")
    parser.add_argument("--photos", type=Path, help="folder of own JPEG files to compare besides, at any depth")
    parser.add_argument("--repeats", type=positive_int, default=5, help="runs of each way; the median is shown")
    return parser.parse_args()


def draw_photo(path: Path, width: int, height: int, seed: int) -> None:
    """A JPEG file with large shapes, texture and sharp edges: it compresses about as photographs do."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        coarse = Image.fromarray(generator.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        picture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float) * 4 / cells
    picture[height // 4 : height // 2, width // 4 : width // 2] += 60 * generator.standard_normal(3)
    picture += generator.normal(0, 4, picture.shape)
    picture = 255 * (picture - picture.min()) / np.ptp(picture)
    Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)


def main() -> None:
    """Time every source both ways, and compare what comes out."""
    args = parse_arguments()
    torch.set_num_threads(1)
    print(f"to {args.side} pixels, one process, one thread, median of {args.repeats} runs\n")
    columns = f"{'plain':>9}{'clipscope':>11}{'cached':>9}{'speed-up':>11}{'pixels differ':>15}"
    print(f"{'images/s of':<22}{columns}   least cosine of embeddings ({', '.join(MODELS)})")
    with tempfile.TemporaryDirectory() as temporary:
        for name, samples in sources(Path(temporary), args).items():
            compare(name, samples, args, Path(temporary))


def sources(temporary: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What is read: {name: samples}."""
    from datasets.image_files import ImageFiles
    from datasets.samples import RawSamples
    from datasets.sources.digits import digits_task

    found: dict[str, Any] = {}
    for width, height in ((500, 375), (2000, 1500)):
        folder = temporary / f"{width}"
        folder.mkdir()
        for number in range(args.images):
            draw_photo(folder / f"{number:04}.jpg", width, height, number)
        found[f"JPEG {width}x{height}"] = ImageFiles.of(folder, [f"{number:04}.jpg".encode() for number in range(args.images)])
    if args.photos is not None:
        files = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        found["own photos"] = ImageFiles.of(args.photos, [str(path.relative_to(args.photos)).encode() for path in files])
    generator = np.random.default_rng(0)
    for name, shape in (("raw 28x28 grey", (28, 28)), ("raw 32x32 RGB", (32, 32, 3)), ("raw 96x96 RGB", (96, 96, 3))):
        found[name] = RawSamples(generator.integers(0, 256, (args.arrays, *shape), dtype=np.uint8), "raw")
    return found | {"Digits 8x8 grey": digits_task("test").samples}


def compare(name: str, samples: Any, args: argparse.Namespace, temporary: Path) -> None:
    """One line of the table."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from datasets.task import Task
    from models.preprocess import Preprocess

    config = PreprocessCfg(size=args.side)
    preprocess, plain = Preprocess(config), image_transform_v2(config, is_train=False)
    task = Task(name, "test", samples, np.zeros(len(samples), dtype=np.int64), ("a",), ("{c}",))
    ready = cached(task, preprocess, temporary)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_way(task, plain),
        "clipscope": lambda: our_way(task, preprocess),
        "cached": lambda: our_way(ready, preprocess),
    }
    rates = {way: len(samples) / seconds for way, seconds in seconds_alternating(ways, args.repeats).items()}
    some = task.subset(np.arange(min(32, len(task))))
    differ = (plain_way(some, plain) - our_way(some, preprocess)) * preprocess.std * 255
    cosines = ", ".join(f"{cosine:.7f}" for cosine in likeness(some))
    speeds = f"{rates['plain']:>9.0f}{rates['clipscope']:>11.0f}{rates['cached']:>9.0f}{rates['clipscope'] / rates['plain']:>10.1f}x"
    print(f"{name:<22}{speeds}{float(differ.abs().mean()):>15.3f}   {cosines}", flush=True)


def plain_way(task: Any, transform: Any) -> Tensor:
    """Every image by itself, file or array."""
    from datasets.samples import ArraySamples, located

    under, places = located(task.samples, np.arange(len(task)))
    if isinstance(under, ArraySamples):
        return torch.stack([transform(Image.fromarray(pixels).convert("RGB")) for pixels in under.pixels_at(places)])
    return torch.stack([transform(Image.open(under.path(int(place))).convert("RGB")) for place in places])  # type: ignore[attr-defined]


def our_way(task: Any, preprocess: Any) -> Tensor:
    """Through the package's loader, and the second half of the preprocessing."""
    from engine.loading import contiguous_batches, make_loader

    loader = make_loader(task, preprocess.geometry, contiguous_batches(len(task), 64))
    return torch.cat([preprocess.of_bytes(batch.pixels) for batch in loader])


def cached(task: Any, preprocess: Any, folder: Path) -> Any:
    """The task with its pixels in a cache."""
    from engine.embed import LoadOptions
    from engine.pixel_cache import with_cached_pixels
    from engine.runtime import start

    return with_cached_pixels(start("cpu"), preprocess.geometry, task, LoadOptions(64, 0, pixel_cache=folder / "pixels"))


def likeness(task: Any) -> list[float]:
    """For each model the least cosine between an image's embeddings of both ways."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from models.loading import load_encoder

    least = []
    for name in MODELS:
        encoder = load_encoder(name)
        plain: Any = image_transform_v2(PreprocessCfg(**encoder.model.visual.preprocess_cfg), is_train=False)  # type: ignore[union-attr,arg-type]
        with torch.inference_mode():
            one = encoder.encode_image(plain_way(task, plain))
            other = encoder.encode_image(our_way(task, encoder.preprocess))
        least.append(float((one * other).sum(dim=1).min()))
    return least


if __name__ == "__main__":
    run(main)
