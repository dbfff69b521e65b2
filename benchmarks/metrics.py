"""Time and memory of the measures, against the plain way.

    python -m benchmarks.metrics                                   # IIMM: sums against pairs, and growth to a million images
    python -m benchmarks.metrics --images 5000 --growth 5000 20000  # in a few seconds

The plain way multiplies all images with all others, in float32 and in blocks of rows so that it fits into memory, and
averages what lies beside the diagonal. Both ways alternate, so that a busy machine slows them alike; medians are shown.
The growth table draws its images in parts and adds up their statistics, so that memory stays bounded; drawing is not timed.
"""

from __future__ import annotations

import argparse
import statistics as stdlib_statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.cli import Parser, run
from metrics.iimm import iimm, iimm_of
from metrics.statistics import statistics

Float32 = NDArray[np.float32]
Instance = tuple[Float32, Float32, NDArray[np.int64]]
PLAIN_ROWS = 2048  # rows of the N x N matrix that the plain way holds at once
PART = 50_000  # images drawn at once for the growth table


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="N of the comparison")
    parser.add_argument("--dimensions", type=int, default=512, help="D, that of ViT-B/32")
    parser.add_argument("--classes", type=int, default=100, help="C")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each way; the median is shown")
    parser.add_argument("--growth", type=int, nargs="*", default=[5_000, 20_000, 100_000, 300_000, 1_000_000], help="N of the growth table")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    return parser.parse_args()


def pairwise_iimm(images: Float32, texts: Float32, labels: NDArray[np.int64]) -> float:
    """IIMM from all N^2 image pairs and all N C image-text pairs."""
    count, classes = len(images), len(texts)
    beside_diagonal = 0.0
    for start in range(0, count, PLAIN_ROWS):
        cosines = images[start : start + PLAIN_ROWS] @ images.T
        beside_diagonal += float(cosines.sum(dtype=np.float64)) - float(np.trace(cosines, offset=start, dtype=np.float64))
    cosines = images @ texts.T
    wrong = float(cosines.sum(dtype=np.float64)) - float(cosines[np.arange(count), labels].sum(dtype=np.float64))
    return (beside_diagonal / (count * (count - 1)) + wrong / (count * (classes - 1))) / 2


def draw_texts(arguments: argparse.Namespace) -> Float32:
    """Unit rows around a common direction, as texts of one model are."""
    return _unit(1 + 2 * np.random.default_rng(arguments.seed).standard_normal((arguments.classes, arguments.dimensions), np.float32))


def draw_parts(arguments: argparse.Namespace, count: int) -> Iterator[tuple[Float32, NDArray[np.int64]]]:
    """``count`` unit rows and labels, in parts."""
    generator = np.random.default_rng(arguments.seed + 1)
    for start in range(0, count, PART):
        size = min(PART, count - start)
        rows = _unit(1 + 2 * generator.standard_normal((size, arguments.dimensions), np.float32))
        yield rows, generator.integers(0, arguments.classes, size)


def _unit(rows: Float32) -> Float32:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def seconds_alternating(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # the first call pays for caches and threads
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: stdlib_statistics.median(values) for name, values in seconds.items()}


def peak_mib(way: Callable[[], Any]) -> float:
    """Greatest memory that ``way`` allocates, in MiB, beside its input."""
    tracemalloc.start()
    way()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def compare(arguments: argparse.Namespace) -> None:
    """Sums against pairs on the same images."""
    parts = list(draw_parts(arguments, arguments.images))
    images, labels = (np.concatenate(side) for side in zip(*parts, strict=True))
    texts = draw_texts(arguments)
    ways = {"sums": lambda: iimm(images, texts, labels), "pairs": lambda: pairwise_iimm(images, texts, labels)}
    seconds = seconds_alternating(ways, arguments.repeats)
    print(
        f"IIMM of N = {len(images):,} images, D = {arguments.dimensions}, C = {arguments.classes}, float32; {arguments.repeats} runs each\n"
    )
    print(f"{'way':8}{'median s':>10}{'peak MiB':>10}  {'IIMM'}")
    for name, way in ways.items():
        print(f"{name:8}{seconds[name]:10.4f}{peak_mib(way):10.1f}  {way():.12f}")
    print(f"\nsums are {seconds['pairs'] / seconds['sums']:.0f} times faster")


def grow(arguments: argparse.Namespace) -> None:
    """Seconds and memory of the sums as N grows."""
    texts = draw_texts(arguments)
    print(f"\nIIMM in parts of {PART:,} images, D = {arguments.dimensions}, C = {arguments.classes}\n")
    print(f"{'N':>12}{'s':>10}{'images/s':>14}{'peak MiB':>10}  {'IIMM'}")
    for count in arguments.growth:
        whole, seconds, peak = None, 0.0, 0.0
        for images, labels in draw_parts(arguments, count):
            peak = peak or peak_mib(partial(statistics, images, texts, labels))  # every part needs the same
            started = time.perf_counter()
            part = statistics(images, texts, labels)
            whole = part if whole is None else whole + part
            seconds += time.perf_counter() - started
        assert whole is not None
        print(f"{count:12,}{seconds:10.3f}{count / seconds:14,.0f}{peak:10.1f}  {iimm_of(whole):.12f}")


def main() -> None:
    """Both tables."""
    arguments = parse_arguments()
    compare(arguments)
    grow(arguments)


if __name__ == "__main__":
    run(main)
