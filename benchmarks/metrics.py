"""Time and memory of the measures, against the plain way.

    python -m benchmarks.metrics                                          # every measure at N = 20,000: minutes, most of it the plain ways
    python -m benchmarks.metrics --images 2000 --classes 40 --repeats 1   # the same in seconds
    python -m benchmarks.metrics --measures iimm --stream 2000000 --folder /scratch   # IIMM of a file of 2 GB, in bounded memory

The plain ways are in benchmarks/plain.py. They get their images in float64 where they compute in it, converted before the clock
starts; ours are given float32, as files hold it. Both alternate, so that a busy machine slows them alike; medians are shown. Memory is
what is allocated beside the input. `together` measures all of one data set, whose sums are shared.
"""

from __future__ import annotations

import argparse
import operator
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import plain
from benchmarks.timing import seconds_alternating
from common.cli import Parser, run
from metrics.iimm import iimm_of
from metrics.sample import Sample
from metrics.statistics import Statistics, statistics
from metrics.table import METRICS

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]
MEASURES = ("iimm", "hscore", "hscore_regularized", "logme", "transrate", "gbc_spherical", "gbc_diagonal", "sfda", "ncti")
WANTED = {"iimm": 100, "transrate": 10, "gbc_spherical": 10, "gbc_diagonal": 4}  # times as fast as the plain way; the others: no slower
PART = 50_000  # images of a long file that are drawn, or summed, at once


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--images", type=int, default=20_000, help="N of the comparison")
    parser.add_argument("--dimensions", type=int, default=512, help="D, that of ViT-B/32")
    parser.add_argument("--classes", type=int, default=397, help="C, that of SUN397")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; the median is shown")
    parser.add_argument("--stream", type=int, default=0, metavar="N", help="also IIMM of a memory-mapped float16 file of N images")
    parser.add_argument("--folder", type=Path, default=None, help="where that file is made, N x D x 2 bytes (default: the system's)")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    return parser.parse_args()


def draw_texts(arguments: argparse.Namespace) -> Float32:
    """Unit rows around a common direction, as texts of one model are."""
    generator = np.random.default_rng(arguments.seed)
    return _unit(1 + 2 * generator.standard_normal((arguments.classes, arguments.dimensions), np.float32))


def draw_images(texts: Float32, count: int, generator: np.random.Generator) -> tuple[Float32, Labels]:
    """Unit rows around a common direction, drawn a little to the text of their class; every class occurs if there are enough."""
    labels = generator.integers(0, len(texts), count)
    labels[: len(texts)] = np.arange(len(texts))[:count]
    scale = np.sqrt(texts.shape[1])
    rows = 1 + 2 * generator.standard_normal((count, texts.shape[1]), np.float32) + np.float32(scale / 2) * texts[labels]
    return _unit(rows), labels


def _unit(rows: Float32) -> Float32:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def peak_mib(way: Callable[[], Any]) -> float:
    """Greatest memory that ``way`` allocates, in MiB, beside its input."""
    tracemalloc.start()
    way()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def compare(arguments: argparse.Namespace) -> None:
    """Every measure against its plain form on the same images, and all together."""
    texts = draw_texts(arguments)
    images, labels = draw_images(texts, arguments.images, np.random.default_rng(arguments.seed + 1))
    wide = images.astype(np.float64)
    shape = f"N = {len(images):,} images, D = {arguments.dimensions}, C = {arguments.classes}"
    print(f"{shape}, float32; medians of {arguments.repeats}\n")
    print(f"{'measure':20}{'s':>9}{'plain s':>9}{'times':>8}{'wanted':>8}{'MiB':>8}{'plain':>8}{'difference':>12}")
    alone = 0.0
    for name in arguments.measures:
        ways = {"ours": ours([name], images, texts, labels), "plain": plain_way(name, images, wide, texts, labels)}
        seconds = seconds_alternating(ways, arguments.repeats)
        alone += seconds["ours"]
        values, memory = ([of(way) for way in ways.values()] for of in (lambda way: way(), peak_mib))
        ratio, difference = seconds["plain"] / seconds["ours"], abs(values[0] - values[1]) / abs(values[1])
        print(f"{name:20}{seconds['ours']:9.3f}{seconds['plain']:9.3f}{ratio:8.1f}{WANTED.get(name, 1):8}", end="")
        print(f"{memory[0]:8.0f}{memory[1]:8.0f}{difference:12.1e}", flush=True)
    together = ours(arguments.measures, images, texts, labels)
    seconds = seconds_alternating({"together": together}, arguments.repeats)
    print(f"{'together':20}{seconds['together']:9.3f}{'':33}{peak_mib(together):.0f}   (one by one: {alone:.3f} s)")


def ours(names: list[str], images: Float32, texts: Float32, labels: Labels) -> Callable[[], float]:
    """These measures of one new sample, which shares what they share; gives the last one's score."""

    def way() -> float:
        sample = Sample(images, texts, labels)
        return [METRICS[name].score(sample) for name in names][-1]

    return way


def plain_way(name: str, images: Float32, wide: NDArray[np.float64], texts: Float32, labels: Labels) -> Callable[[], float]:
    """The plain form; that of IIMM multiplies in float32, as the released code does."""
    if name == "iimm":
        return lambda: plain.iimm(images, texts, labels)
    form = getattr(plain, name)
    return lambda: float(form(wide, labels))


def stream(arguments: argparse.Namespace) -> None:
    """IIMM of a file that is far larger than the memory it takes."""
    texts = draw_texts(arguments)
    labels = np.random.default_rng(arguments.seed).integers(0, arguments.classes, arguments.stream)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        images = write_images(Path(folder) / "images.npy", texts, labels, arguments)
        print(f"\nIIMM of {len(images):,} images, D = {arguments.dimensions}, float16, {images.nbytes / 1e9:.1f} GB memory-mapped\n")
        started = time.perf_counter()
        total = sum(int(part.view(np.uint16).max()) for part, _ in parts_of(images, labels))  # touches every byte
        reading = time.perf_counter() - started
        assert total > 0
        started = time.perf_counter()
        value = iimm_of(streamed(images, texts, labels))
        seconds = time.perf_counter() - started
        memory = peak_mib(lambda: streamed(images[: 4 * PART], texts, labels[: 4 * PART]))
        print(f"{'reading alone':16}{reading:9.2f} s{images.nbytes / reading / 1e9:9.2f} GB/s")
        print(f"{'IIMM':16}{seconds:9.2f} s{images.nbytes / seconds / 1e9:9.2f} GB/s{len(images) / seconds:14,.0f} images/s", end="")
        print(f"{memory:8.1f} MiB  {value:.12f}")


def write_images(path: Path, texts: Float32, labels: Labels, arguments: argparse.Namespace) -> NDArray[np.float16]:
    """A file of unit rows, the drawn ones of one part over and over in another order of their values."""
    images = np.lib.format.open_memmap(path, "w+", np.float16, (len(labels), texts.shape[1]))
    generator = np.random.default_rng(arguments.seed + 2)
    drawn = draw_images(texts, min(PART, len(labels)), generator)[0].astype(np.float16)
    for part, _ in parts_of(images, labels):
        part[:] = np.roll(drawn[: len(part)], int(generator.integers(texts.shape[1])), axis=1)
    images.flush()
    return np.load(path, mmap_mode="r")


def parts_of(images: NDArray[np.float16], labels: Labels) -> Iterator[tuple[NDArray[np.float16], Labels]]:
    for start in range(0, len(images), PART):
        yield images[start : start + PART], labels[start : start + PART]


def streamed(images: NDArray[np.float16], texts: Float32, labels: Labels) -> Statistics:
    """The statistics of all parts, added up."""
    each = (statistics(part, texts, of) for part, of in parts_of(images, labels))
    return reduce(operator.add, each)


def main() -> None:
    """The table of measures, and the long file if there is to be one."""
    arguments = parse_arguments()
    compare(arguments)
    if arguments.stream:
        stream(arguments)


if __name__ == "__main__":
    run(main)
