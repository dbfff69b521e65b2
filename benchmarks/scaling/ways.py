"""What is measured: each function makes a piece of work of one size ready, and returns what is timed.

Every one is called in a process of its own, so it imports what it needs. Data are drawn. ``folder`` is one that the caller removes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.work import Scaled, Way

ROOT = Path(__file__).parents[2]

PHOTOS, WIDTH = 32, 500  # different JPEG files of a folder, which links make as many as are wanted
LAYER = {"attention.weight": (768, 3072), "mlp.weight": (768, 6144)}  # of a layer as large as ViT-B's
LAYER_PARAMETERS = 768 * (3072 + 6144)


def measure_way(name: str, images: int, classes: int, dimensions: int) -> Way:
    """A measure of a new sample, float32 [N, D] around the texts of C classes."""
    from benchmarks.metrics import draw_images, draw_texts
    from metrics.sample import Sample
    from metrics.table import METRICS

    import_scipy()
    texts = draw_texts(argparse.Namespace(classes=classes, dimensions=dimensions, seed=0))
    rows, labels = draw_images(texts, images, generator(1))
    return lambda: METRICS[name].score(Sample(rows, texts, labels))


def import_scipy() -> None:
    """What measures import when they are first used must not count."""
    import scipy.linalg
    import scipy.special  # noqa: F401


def generator(seed: int) -> Any:
    """Of random numbers."""
    import numpy as np

    return np.random.default_rng(seed)


def embed_way(folder: Path, images: int) -> Way:
    """Reading, decoding and embedding of JPEG files by the tiny model in one process, fingerprint included."""
    from datasets.registry import load_task
    from engine.embed import LoadOptions, embed_task
    from engine.runtime import start
    from models.selection import select_encoder

    photos = folder / f"photos-{images}"
    link_photos(photos, images)
    runtime, selection = start("cpu", "fp32"), select_encoder("tiny", None, {})
    options = LoadOptions(num_workers=0)
    return lambda: len(embed_task(runtime, selection, load_task(f"imagefolder:{photos}", "test"), options)[0].labels)


def torchrun_way(folder: Path, images: int, processes: int) -> Way:
    """The same by get_embeddings.py in 1 or 2 processes; on the wall what they took to embed, without their start."""
    from engine.embeddings import load_embeddings

    photos, out = folder / f"photos-{images}-{processes}", folder / f"embeddings-{processes}"
    link_photos(photos, images)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        str(ROOT / "get_embeddings.py"),
    ]
    command += ["--model-name", "tiny", "--datasets", f"imagefolder:{photos}", "--split", "test", "--num-workers", "0", "--device", "cpu"]

    def way() -> Scaled:
        used = os.times()
        subprocess.run([*command, "--outfolder", str(out), "--overwrite"], check=True, capture_output=True, cwd=ROOT)
        (file,) = out.rglob("*.safetensors")
        cpu = sum(os.times()[2:4]) - sum(used[2:4])
        return Scaled(None, float(load_embeddings(file).metadata["embedding_seconds"]), cpu)

    return way


def link_photos(folder: Path, images: int) -> None:
    """So many names of few files, in two classes."""
    from benchmarks.embed import draw_folder

    draw_folder(folder / "drawn", PHOTOS, WIDTH)
    drawn = sorted((folder / "drawn").rglob("*.jpg"))
    for number in range(images):
        target = folder / "test" / f"class_{number % 2}" / f"{number:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(drawn[number % PHOTOS])


def rank_way(items: int) -> Way:
    """Retrieval among Q = G items of 100 classes, D = 512, each left out of its own gallery."""
    import torch

    from datasets.retrieval.relevance import Relevance
    from engine.ranking import rank_positives
    from engine.retrieval_scores import retrieval_scores

    rows, labels = features(items, 100, 512)
    relevance = {"": Relevance.by_label(labels.numpy(), labels.numpy(), leave_one_out=True)}
    torch.set_num_threads(1)
    return lambda: retrieval_scores(rank_positives(rows, rows, relevance, "cpu")[""]).mAP


def features(items: int, classes: int, dimensions: int, seed: int = 1) -> tuple[Any, Any]:
    """Unit rows around the means of their classes, which do not depend on the seed, and labels."""
    import torch
    from torch.nn.functional import normalize

    means = torch.randn(classes, dimensions, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(items) % classes
    return normalize(
        torch.randn(items, dimensions, generator=torch.Generator().manual_seed(seed)).mul_(3).add_(means[labels]), dim=1
    ), labels


def search_way(images: int, classes: int, keys: int) -> Way:
    """The grid search of Tip-Adapter's alpha and beta, D = 512."""
    import torch

    from fewshot.data import Features, FewShotData
    from fewshot.methods.tip_adapter import tip_model
    from fewshot.published import tip_grid
    from fewshot.search import Searched

    torch.set_num_threads(1)
    (val, labels), (cache, of_cache), (texts, _) = (
        features(images, classes, 512),
        features(keys, classes, 512, 2),
        features(classes, classes, 512, 3),
    )
    side = Features(val, None, labels)
    data = FewShotData(Features(cache, None, of_cache), side, side, texts)
    return lambda: Searched(tip_model(data, data.cache.original, False), side, keys + classes, tip_grid("", "overlap")).counts().max()


def merge_way(folder: Path, method: str, models: int, layers: int) -> Way:
    """K safetensors files of drawn weights, and a base, into one; reading, checks and checksums included."""
    import torch

    from merging.inputs import open_inputs
    from merging.merge import merge
    from merging.options import MergeOptions
    from merging.table import METHODS

    torch.set_num_threads(1)
    files = [draw_model(folder / f"model{number}-{layers}.safetensors", layers, number) for number in range(models + 1)]
    out = folder / f"{method}-{models}-{layers}.safetensors"

    def way() -> None:
        inputs = open_inputs(str(files[0]), list(map(str, files[1:])))
        merge(inputs, METHODS[method], MergeOptions(), out, overwrite=True)

    return way


def draw_model(path: Path, layers: int, seed: int) -> Path:
    """A model around the one that all have in common, unless an earlier point has drawn it."""
    import torch

    from merging.stream import Spec, TensorWriter

    names = {f"layers.{number}.{name}": Spec(shape, torch.float32) for number in range(layers) for name, shape in LAYER.items()}
    common, drawn = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed + 1)
    if path.exists():
        return path
    with TensorWriter(path, names, {"format": "pt"}) as writer:
        for name, spec in names.items():
            base = torch.randn(spec.shape, generator=common).mul_(0.02)
            writer.write(name, base.add_(torch.randn(spec.shape, generator=drawn), alpha=0.001) if seed else base)
    return path


def read_way(folder: Path, images: int) -> Way:
    """Reading an embeddings file of D = 512 with its sample ids, checksums compared."""
    from engine.embeddings import load_embeddings, save_embeddings

    path = folder / f"embeddings-{images}.safetensors"
    save_embeddings(path, drawn_embeddings(images))
    return lambda: len(load_embeddings(path).labels)


def write_way(folder: Path, images: int) -> Way:
    """Writing it."""
    from engine.embeddings import save_embeddings

    embeddings = drawn_embeddings(images)
    return partial(save_embeddings, folder / f"written-{images}.safetensors", embeddings)


def drawn_embeddings(images: int) -> Any:
    """Of 100 classes."""
    from benchmarks.metrics import draw_images, draw_texts
    from engine.embeddings import Embeddings, describe

    texts = draw_texts(argparse.Namespace(classes=100, dimensions=512, seed=0))
    rows, labels = draw_images(texts, images, generator(1))
    ids = [f"train/class_{label:04}/{number:08}.jpg" for number, label in enumerate(labels.tolist())]
    return Embeddings(rows, texts, labels, ids, describe(model="drawn", dataset="drawn", split="train", classnames=(), templates=()))


def study_way(folder: Path, cells: int) -> Way:
    """A second run of a study that is done: all cells are looked at, their inputs hashed, nothing is left; then they are counted."""
    from benchmarks.scaling.study import CELLS, finished_study
    from study.run import counts, run_units

    units, plan, out, options = finished_study(folder / f"study-{cells}", cells // CELLS)

    def way() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as told:
            run_units(units, plan, out, options)
        assert not told.getvalue(), "a finished cell was worked on again"
        assert counts(units, out)["to do"] == 0

    return way
