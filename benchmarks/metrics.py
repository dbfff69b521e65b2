"""Time and memory of the measures, against the plain way.

    python -m benchmarks.metrics                                          # every measure at N = 20,000: minutes, most of it the plain ways
    python -m benchmarks.metrics --images 2000 --classes 40 --repeats 1   # the same in seconds
    python -m benchmarks.metrics --measures iimm --stream 10000000 --folder /scratch   # IIMM of a file of 10 GB, in bounded memory

The plain ways are in benchmarks/plain.py. They get their images in float64 where they compute in it, converted before the clock
starts, and IIMM's in float32 as the released code does; ours are given float32, as files hold it. `all` measures all of one data set,
whose sums are shared, against ours one by one. With ``--stream`` IIMM of a memory-mapped float16 file stands against
reading that file, which is the least that any way takes.
"""

from __future__ import annotations

import argparse
import operator
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.work import Way, Work, add_measuring_arguments, relatively_within
from common.arguments import count, positive_int
from common.cli import Parser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Labels = NDArray[np.int64]

MEASURES = ("iimm", "hscore", "hscore_regularized", "logme", "transrate", "gbc_spherical", "gbc_diagonal", "sfda", "ncti")
LIMIT = 1e-8  # of a relative difference; the plain IIMM adds up products in float32
PART = 50_000  # images of a long file that are drawn, or summed, at once


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    names = (*MEASURES, "all")
    parser.add_argument("--measures", nargs="+", choices=names, default=list(names), metavar="NAME", help=", ".join(names))
    parser.add_argument("--images", type=positive_int, default=20_000, help="N of the comparison")
    parser.add_argument("--dimensions", type=positive_int, default=512, help="D, that of ViT-B/32")
    parser.add_argument("--classes", type=positive_int, default=397, help="C, that of SUN397")
    parser.add_argument("--stream", type=count, default=0, metavar="N", help="also IIMM of a memory-mapped float16 file of N images")
    parser.add_argument("--folder", type=Path, help="where that file is made, N x D x 2 bytes (default: the system's)")
    parser.add_argument("--seed", type=count, default=0, help="of the images")
    add_measuring_arguments(parser)
    return parser.parse_args(words)


def works(args: argparse.Namespace) -> Iterator[Work]:
    """A row for every measure, one for all, and one for the long file if there is to be one."""
    size = f"N = {args.images:,}, D = {args.dimensions}, C = {args.classes}"
    agree = partial(relatively_within, LIMIT, "scores")
    for name in args.measures:
        if name == "all":
            title, against = f"all {len(MEASURES)} measures, {size}", "clipscope's own one by one"
            plain, ours = partial(prepare_ours, args, [[one] for one in MEASURES]), partial(prepare_ours, args, [MEASURES])
        else:
            title, against = f"`{name}`, {size}", "the textbook formula"
            plain, ours = partial(prepare_plain, args, name), partial(prepare_ours, args, [[name]])
        yield Work(title, against, plain, ours, agree, args.repeats, first_counts=True)
    if args.stream:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / "images.npy"
            title = f"IIMM of {args.stream:,} float16 rows of {args.dimensions} from disk, {2e-9 * args.stream * args.dimensions:.1f} GB"
            write_images(path, args)
            plain, ours = partial(prepare_reading, args, path), partial(prepare_stream, args, path)
            yield Work(title, "reading the file alone", plain, ours, lambda _, value: f"IIMM {value:.12f}", args.repeats)


def draw(args: argparse.Namespace) -> tuple[Float32, Float32, Labels]:
    """Images, texts, labels."""
    import numpy as np

    texts = draw_texts(args)
    images, labels = draw_images(texts, args.images, np.random.default_rng(args.seed + 1))
    return images, texts, labels


def draw_texts(args: argparse.Namespace) -> Float32:
    """Unit rows around a common direction, as texts of one model are."""
    import numpy as np

    generator = np.random.default_rng(args.seed)
    return _unit(1 + 2 * generator.standard_normal((args.classes, args.dimensions), np.float32))


def draw_images(texts: Float32, count: int, generator: np.random.Generator) -> tuple[Float32, Labels]:
    """Unit rows around a common direction, drawn a little to the text of their class; every class occurs if there are enough."""
    import numpy as np

    labels = generator.integers(0, len(texts), count)
    labels[: len(texts)] = np.arange(len(texts))[:count]
    scale = np.sqrt(texts.shape[1])
    rows = 1 + 2 * generator.standard_normal((count, texts.shape[1]), np.float32) + np.float32(scale / 2) * texts[labels]
    return _unit(rows), labels


def _unit(rows: Float32) -> Float32:
    import numpy as np

    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def prepare_ours(args: argparse.Namespace, groups: Sequence[Sequence[str]]) -> Way:
    """Groups of measures, each of one new sample, which shares what they share; gives the last one's score."""
    from metrics.sample import Sample
    from metrics.table import METRICS

    images, texts, labels = draw(args)

    def way() -> float:
        for names in groups:
            sample = Sample(images, texts, labels)
            scores = [METRICS[name].score(sample) for name in names]
        return scores[-1]

    return way


def prepare_plain(args: argparse.Namespace, name: str) -> Way:
    """The plain form."""
    import numpy as np

    from benchmarks import plain

    images, texts, labels = draw(args)
    if name == "iimm":
        return lambda: plain.iimm(images, texts, labels)
    form, wide = getattr(plain, name), images.astype(np.float64)
    return lambda: float(form(wide, labels))


def prepare_reading(args: argparse.Namespace, path: Path) -> Way:
    """Every byte of the file, touched once."""
    import numpy as np

    images, labels = long_file(args, path)
    return lambda: max(int(part.view(np.uint16).max()) for part, _ in parts_of(images, labels))


def prepare_stream(args: argparse.Namespace, path: Path) -> Way:
    """The statistics of all parts, added up, and IIMM of them."""
    from metrics.iimm import iimm_of
    from metrics.statistics import statistics

    texts = draw_texts(args)
    images, labels = long_file(args, path)
    return lambda: iimm_of(reduce(operator.add, (statistics(part, texts, of) for part, of in parts_of(images, labels))))


def long_file(args: argparse.Namespace, path: Path) -> tuple[Any, Labels]:
    """The file as a memory map, and its labels."""
    import numpy as np

    return np.load(path, mmap_mode="r"), np.random.default_rng(args.seed).integers(0, args.classes, args.stream)


def write_images(path: Path, args: argparse.Namespace) -> None:
    """A file of unit rows, the drawn ones of one part over and over in another order of their values."""
    import numpy as np

    images: Any = np.lib.format.open_memmap(path, "w+", np.float16, (args.stream, args.dimensions))
    generator = np.random.default_rng(args.seed + 2)
    drawn = draw_images(draw_texts(args), min(PART, args.stream), generator)[0].astype(np.float16)
    for part, _ in parts_of(images, np.empty(args.stream)):
        part[:] = np.roll(drawn[: len(part)], int(generator.integers(args.dimensions)), axis=1)
    images.flush()


def parts_of(images: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
    """Images and labels, some at a time."""
    for start in range(0, len(images), PART):
        yield images[start : start + PART], labels[start : start + PART]


if __name__ == "__main__":
    from benchmarks.show import main

    main(parse_arguments, works)
