"""Decoded, resized and cropped images, kept on disk for the next pass (``--pixel-cache DIR``).

A pass over images that are read, decoded and resized anew spends most of a CPU's time so; epochs of fine-tuning, several
models of one input size and repeated evaluations need it once. A cache is one file of bytes, 3 S^2 per image (150 kB at S = 224),
mapped into memory. Its name holds a hash of the task's fingerprint and of all that decides the pixels, so a changed image, another
order, size or version of Pillow makes another cache, and none is ever stale.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from tqdm import tqdm

from common.errors import UserError
from common.files import ensure_folder, read_json, write_json
from datasets.registry import task_slug
from datasets.samples import ReadySamples
from datasets.task import Task
from engine.loading import contiguous_batches, make_loader
from engine.runtime import Runtime
from models.preprocess import Geometry

if TYPE_CHECKING:
    from engine.embed import LoadOptions

FORMAT = "clipscope-pixels/1"


def with_cached_pixels(runtime: Runtime, geometry: Geometry, task: Task, options: LoadOptions) -> Task:
    """``task`` with its pixels taken from the cache, which is made first where there is none; without --pixel-cache as it is."""
    if options.pixel_cache is None or isinstance(task.samples, ReadySamples):
        return task
    path = cache_path(options.pixel_cache, geometry, task, options.full_decode)
    done = path.with_suffix(".json")
    if not all(runtime.gather_objects([done.exists()])):  # as every process sees it, so that all do the same
        _make(runtime, geometry, task, options, path)
    unreadable = {int(index): reason for index, reason in read_json(done)["unreadable"].items()}
    return replace(task, samples=ReadySamples(task.samples, path, unreadable))


def cache_path(folder: Path, geometry: Geometry, task: Task, full_decode: bool) -> Path:
    """The cache's file, whether it is there or not."""
    decides = (FORMAT, task.fingerprint, repr(geometry.steps), geometry.size, full_decode, PIL.__version__)
    return folder / f"{task_slug(task.name)}_{task.split}-{hashlib.sha256(repr(decides).encode()).hexdigest()[:12]}.npy"


def _make(runtime: Runtime, geometry: Geometry, task: Task, options: LoadOptions, path: Path) -> None:
    """Write the file under another name, each process its share, and rename it; the JSON beside it comes last."""
    part = Path(runtime.gather_objects([f"{path}.part-{os.getpid()}"])[0])
    shape = (len(task), 3, *geometry.size)
    if runtime.is_main:
        _check_space(ensure_folder(path.parent), int(np.prod(shape)))
        np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    runtime.gather_objects([None])  # wait: the file is there now
    try:
        unreadable = dict(runtime.gather_objects(_fill(runtime, geometry, task, options, part)))
        if runtime.is_main:
            part.replace(path)
            write_json(path.with_suffix(".json"), {"format": FORMAT, "fingerprint": task.fingerprint, "unreadable": unreadable})
    finally:
        if runtime.is_main:
            part.unlink(missing_ok=True)
    runtime.gather_objects([None])


def _fill(runtime: Runtime, geometry: Geometry, task: Task, options: LoadOptions, part: Path) -> list[tuple[str, str]]:
    """Write this process's images; returns (index, reason) of those that cannot be read."""
    if not part.exists():
        raise UserError(f"--pixel-cache '{part.parent}' must be a folder that all machines of a run share.")
    pixels = np.load(part, mmap_mode="r+", allow_pickle=False)
    shares = contiguous_batches(len(task), options.batch_size, runtime.rank, runtime.world)
    loader = make_loader(task, geometry, shares, num_workers=options.num_workers, full_decode=options.full_decode)
    unreadable = []
    for batch in tqdm(loader, desc=f"caching {task.name} {task.split}", disable=not (options.progress and runtime.is_main), leave=False):
        ready = batch.pixels if batch.pixels.shape[-2:] == geometry.size else geometry.of_batch(batch.pixels)
        pixels[batch.indices.numpy()] = ready.numpy()
        unreadable += [(str(index), reason) for index, reason in batch.skipped]
    pixels.flush()  # type: ignore[attr-defined]
    return unreadable


def _check_space(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        sizes = f"{needed / 1e9:.1f} GB, and '{folder}' has {free / 1e9:.1f} GB"
        raise UserError(f"The pixel cache needs {sizes} free; name another --pixel-cache, or leave it out.")
