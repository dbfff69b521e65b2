"""Time from files and arrays to what the image tower takes, against Pillow and torchvision's plain transform.

    python -m benchmarks.data
    python -m benchmarks.data --images 64 --side 224 --photos FOLDER
    python -m benchmarks.data --likeness "ViT-B-32-quickgelu/random"

Each way runs in one process with one thread. "Plain" is what open_clip and most training code does: Image.open, convert, Resize,
CenterCrop, ToTensor, Normalize for every image. The rows from the pixel cache read what an earlier pass has left there. Beside the
time stands how far pixels are apart on average, in 255ths, and with ``--likeness`` the least cosine between the embeddings
of 32 images both ways, by that model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.work import Disagreement, Way, Work, add_measuring_arguments
from common.arguments import positive_int
from common.cli import Parser

PHOTOS = {"500 x 375": (500, 375), "2000 x 1500": (2000, 1500)}
ARRAYS = {"28 x 28, grey": (28, 28), "96 x 96, RGB": (96, 96, 3)}
MOST = 1.0  # mean difference of pixels in 255ths: large files are decoded at the scale that is needed
SAME = 32  # images that both ways are compared on


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=64, help="files of each size")
    parser.add_argument("--arrays", type=positive_int, default=512, help="images of each raw set")
    parser.add_argument("--side", type=positive_int, default=224, help="what the image tower takes")
    parser.add_argument("--photos", type=Path, help="folder of own JPEG files to compare besides, at any depth")
    parser.add_argument("--likeness", metavar="MODEL", help="also the least cosine of embeddings, by this model")
    add_measuring_arguments(parser, threads=1)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """A row for every kind of image, and one for reading the largest from the cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, (width, height) in PHOTOS.items():
            (folder / size).mkdir()
            for number in range(args.images):
                draw_photo(folder / size / f"{number:04}.jpg", width, height, number)
            yield work(args, f"{args.images} JPEG files of {size}", folder / size)
        if args.photos is not None:
            yield work(args, f"own photos of {args.photos}", args.photos)
        for size, shape in ARRAYS.items():
            yield work(args, f"{args.arrays} arrays of {size}", shape)
        last = folder / list(PHOTOS)[-1]
        yield work(args, f"{args.images} JPEG files of {last.name} from the pixel cache", last, cache=folder / "cache")


def work(args: argparse.Namespace, name: str, source: Any, cache: Path | None = None) -> Work:
    """The row of one source."""
    plain, ours = partial(prepare_plain, args, source), partial(prepare_ours, args, source, cache)
    agree = partial(likeness, args.likeness)
    return Work(f"{name} to {args.side} pixels", "Pillow and torchvision, one by one", plain, ours, agree, args.repeats)


def draw_photo(path: Path, width: int, height: int, seed: int) -> None:
    """A JPEG file with large shapes, texture and sharp edges: it compresses about as photographs do."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        coarse = Image.fromarray(generator.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        picture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float) * 4 / cells
    picture[height // 4 : height // 2, width // 4 : width // 2] += 60 * generator.standard_normal(3)
    picture += generator.normal(0, 4, picture.shape)
    picture = 255 * (picture - picture.min()) / np.ptp(picture)
    Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)


def task_of(args: argparse.Namespace, source: Any) -> Any:
    """The files below a folder, or drawn arrays of a shape."""
    import numpy as np

    from datasets.image_files import ImageFiles
    from datasets.samples import RawSamples
    from datasets.task import Task

    samples: Any
    if isinstance(source, Path):
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        samples = ImageFiles.of(source, [str(path.relative_to(source)).encode() for path in files])
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (args.arrays, *source), dtype=np.uint8)
        samples = RawSamples(pixels, "raw")
    return Task("images", "test", samples, np.zeros(len(samples), dtype=np.int64), ("a",), ("{c}",))


def prepare_plain(args: argparse.Namespace, source: Any) -> Way:
    """Every image by itself, file or array."""
    import numpy as np
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    from datasets.samples import ArraySamples, located

    task, transform = task_of(args, source), image_transform_v2(PreprocessCfg(size=args.side), is_train=False)
    under: Any
    under, places = located(task.samples, np.arange(len(task)))

    def image(place: int) -> Image.Image:
        return Image.fromarray(under.pixels_at(np.array([place]))[0]) if isinstance(under, ArraySamples) else Image.open(under.path(place))

    def way() -> Any:
        return torch.stack([transform(image(int(place)).convert("RGB")) for place in places])[:SAME].numpy()

    return way


def prepare_ours(args: argparse.Namespace, source: Any, cache: Path | None) -> Way:
    """Through the package's loader, and the second half of the preprocessing; with a ``cache``, from there."""
    import torch
    from open_clip.transform import PreprocessCfg

    from engine.embed import LoadOptions
    from engine.loading import contiguous_batches, make_loader
    from engine.pixel_cache import with_cached_pixels
    from engine.runtime import start
    from models.preprocess import Preprocess

    task, preprocess = task_of(args, source), Preprocess(PreprocessCfg(size=args.side))
    if cache is not None:
        task = with_cached_pixels(start("cpu"), preprocess.geometry, task, LoadOptions(64, 0, pixel_cache=cache))

    def way() -> Any:
        loader = make_loader(task, preprocess.geometry, contiguous_batches(len(task), 64))
        return torch.cat([preprocess.of_bytes(batch.pixels) for batch in loader])[:SAME].numpy()

    return way


def likeness(model: str | None, plain: Any, ours: Any) -> str:
    """How far pixels are apart on average, and the least cosine of their embeddings if there is a model."""
    import numpy as np
    from open_clip.constants import OPENAI_DATASET_STD

    apart = float((np.abs(plain - ours) * np.reshape(OPENAI_DATASET_STD, (3, 1, 1))).mean()) * 255
    if not apart <= MOST:
        raise Disagreement(f"pixels differ by {apart:.2f} of 255 on average")
    cosine = f"; least cosine {least_cosine(model, plain, ours):.7f}" if model else ""
    return f"pixels {'equal' if apart < 1e-4 else f'within {apart:.2f} of 255 on average'}{cosine}"


def least_cosine(model: str, plain: Any, ours: Any) -> float:
    """Of the embeddings of an image both ways."""
    import torch

    from models.loading import load_encoder

    encode = load_encoder(model).encode_image
    with torch.inference_mode():
        return float((encode(torch.from_numpy(plain)) * encode(torch.from_numpy(ours))).sum(dim=1).min())


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
