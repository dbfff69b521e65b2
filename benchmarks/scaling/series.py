"""Every series that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.scaling import ways
from benchmarks.scaling.growth import Series

SUMS = ("iimm", "hscore", "logme", "transrate", "gbc_diagonal", "sfda", "ncti", "emms")
PAIRS = ("parc", "knn")  # of all images
MERGES = ("task_arithmetic", "ties")
N, C, D = 20_000, 100, 512  # what stays, while another one changes
QUICK = 8  # by how much sizes are smaller for a look


def every_series(folder: Path, quick: bool) -> Iterator[Series]:
    """All of them, minutes; ``quick``: at sizes that take one. ``folder`` is for what they write."""
    part = QUICK if quick else 1
    yield from measures(part)
    yield from searches(part)
    yield from merges(folder, quick)
    yield from files(folder, part)
    yield from embedding(folder, part)


def measures(part: int) -> Iterator[Series]:
    """Measures against N, C and D."""
    for name in SUMS:
        way = partial(ways.measure_way, name)
        yield Series(name, "N", _parts((5_000, 20_000, 80_000), part), f"C = {C}, D = {D}", partial(way, classes=C, dimensions=D), "images")
        sized = partial(way, images=N // part)
        yield Series(name, "C", (25, 100, 400), f"N = {N // part:,}, D = {D}", partial(sized, dimensions=D), "classes")
        yield Series(name, "D", (128, 256, 512), f"N = {N // part:,}, C = {C}", partial(sized, classes=C), "dimensions")
    for name in PAIRS:
        way = partial(ways.measure_way, name, classes=C, dimensions=D)
        sizes = _parts((3_000, 6_000, 12_000), part)  # parc takes up to 2,048 images in another way
        yield Series(name, "N", sizes, f"C = {C}, D = {D}", way, "images")


def searches(part: int) -> Iterator[Series]:
    """Ranking, and the search for the hyper-parameters of a cache model."""
    sizes = _parts((2_000, 4_000, 8_000), part)
    yield Series("retrieval", "Q = G", sizes, f"D = {D}", ways.rank_way, "items")
    n, keys, way, name = 4_000 // part, 1_600, ways.search_way, "few-shot search"
    yield Series(name, "N", sizes, f"{keys:,} keys, C = {C}", partial(way, classes=C, keys=keys), "images")
    yield Series(name, "keys", (400, 1_600, 6_400), f"N = {n:,}, C = {C}", partial(way, images=n, classes=C), "keys")
    yield Series(name, "C", (25, 100, 400), f"N = {n:,}, {keys:,} keys", partial(way, images=n, keys=keys), "classes")


def merges(folder: Path, quick: bool) -> Iterator[Series]:
    """Merging against the number of models and their size."""
    for name in MERGES:
        way = partial(ways.merge_way, folder, name)
        layers = 1 if quick else 2
        fixed = f"{ways.LAYER_PARAMETERS * layers / 1e6:.1f} million parameters"
        yield Series(f"merge, {name}", "K", (2, 4, 8), fixed, partial(way, layers=layers), "models")
        yield Series(f"merge, {name}", "layers", (1, 2, 4), "K = 4", partial(way, models=4), "layers")


def files(folder: Path, part: int) -> Iterator[Series]:
    """Embeddings files, and the records of a study."""
    for name, way in (("read embeddings", ways.read_way), ("write embeddings", ways.write_way)):
        yield Series(name, "N", _parts((10_000, 40_000, 160_000), part), f"D = {D}", partial(way, folder), "images")
    study = partial(ways.study_way, folder)
    yield Series("finished study", "cells", (480, 960, 1_920) if part == 1 else (120, 240, 480), "nothing to do", study, "cells")


def embedding(folder: Path, part: int) -> Iterator[Series]:
    """From JPEG files to embeddings."""
    sizes = _parts((256, 512, 1_024), part)
    name, way = "get_embeddings", partial(ways.embed_way, folder)
    yield Series(name, "N", sizes, "500 x 375 JPEG, tiny model, 1 process", way, "images", alone=True)
    fixed = f"{sizes[-1]} JPEG files, tiny model"
    yield Series(name, "processes", (1, 2), fixed, partial(ways.torchrun_way, folder, sizes[-1]), "processes", repeats=1, alone=True)


def _parts(sizes: tuple[int, ...], part: int) -> tuple[int, ...]:
    return tuple(size // part for size in sizes)
