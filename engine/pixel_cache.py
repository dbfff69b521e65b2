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
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from tqdm import tqdm

from common.errors import UserError
from common.files import in_the_making, read_json, write_json
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
    unreadable = _unreadable(path, geometry, task)
    if not all(runtime.gather_objects([unreadable is not None])):  # as every process sees it, so that all do the same
        _make(runtime, geometry, task, options, path)
        unreadable = _unreadable(path, geometry, task)
    if unreadable is None:
        raise UserError(f"The pixel cache '{path}' was made, but cannot be read again; name another --pixel-cache, or leave it out.")
    return replace(task, samples=ReadySamples(task.samples, path, unreadable))


def _unreadable(path: Path, geometry: Geometry, task: Task) -> dict[int, str] | None:
    """The images that could not be decoded, by index; None when there is no cache, or a damaged one: then it is made anew."""
    try:
        described = read_json(path.with_suffix(".json"))
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = pixels.shape == (len(task), 3, *geometry.size) and pixels.dtype == np.uint8 and described["fingerprint"] == task.fingerprint
        return {int(index): str(reason) for index, reason in described["unreadable"].items()} if whole else None
    except Exception:  # UserError; NumPy, and JSON of another form, raise nearly every type
        return None


def cache_path(folder: Path, geometry: Geometry, task: Task, full_decode: bool) -> Path:
    """The cache's file, whether it is there or not."""
    decides = (FORMAT, task.fingerprint, repr(geometry.steps), geometry.size, full_decode, PIL.__version__)
    return folder / f"{task_slug(task.name)}_{task.split}-{hashlib.sha256(repr(decides).encode()).hexdigest()[:12]}.npy"


def _make(runtime: Runtime, geometry: Geometry, task: Task, options: LoadOptions, path: Path) -> None:
    """Write the file under another name, each process its share, and rename it; the JSON beside it comes last."""
    shape = (len(task), 3, *geometry.size)
    with in_the_making(path) if runtime.is_main else nullcontext() as folder:
        part = Path(runtime.gather_objects([f"{folder}/new.npy"])[0])
        if runtime.is_main:
            _take_space(part, shape)
        runtime.gather_objects([None])  # wait: the file is there now
        unreadable = dict(runtime.gather_objects(_fill(runtime, geometry, task, options, part)))
        if runtime.is_main:
            part.replace(path)
            write_json(path.with_suffix(".json"), {"format": FORMAT, "fingerprint": task.fingerprint, "unreadable": unreadable})
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


def _take_space(part: Path, shape: tuple[int, ...]) -> None:
    """Make the file in its full size: a disk that fills up later would end the process without a word, by SIGBUS."""
    needed, free = int(np.prod(shape)), shutil.disk_usage(part.parent).free
    if free < needed:
        sizes = f"{needed / 1e9:.1f} GB, and '{part.parent.parent}' has {free / 1e9:.1f} GB"
        raise UserError(f"The pixel cache needs {sizes} free; name another --pixel-cache, or leave it out.")
    try:
        np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with part.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
    except OSError as error:
        raise UserError(f"Cannot write the pixel cache in '{part.parent.parent}': {error.strerror or error}.") from error
