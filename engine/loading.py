"""Batches of a task: decoded, transformed and collated in loader processes.

What is loaded are bytes, uint8; the encoder makes numbers of them on the device (:mod:`models.preprocess`). Images that lie in an
array, and those of a pixel cache, become a batch at once.

Which images are in which batch is decided outside (:func:`contiguous_batches`, or any list of lists of indices), and what a
random transform does to an image depends only on (seed, epoch, index). So neither the number of loader processes nor that
of training processes changes a result.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from common import stages
from common.errors import UserError
from common.files import write_text
from common.stages import stage
from datasets.samples import ArraySamples, EncodedSamples, ReadySamples, UnreadableImage, located
from datasets.task import Task

Transform = Callable[[Image.Image], Tensor]  # may have: side, batches (see models.preprocess.Geometry)
Indices = NDArray[np.int64]
Key = tuple[int, int]  # (epoch, index): what loader processes receive for each image


class Batches(Protocol):
    """The indices of each batch: a list of lists, or a batch sampler. ``set_epoch(epoch)`` is called where there is one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[int]]: ...


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of an image that cannot be decoded."""

    index: int
    reason: str


Item = tuple[Tensor, int, int] | Unreadable  # (pixels, label, index)


@dataclass(frozen=True)
class Batch:
    """The readable images of a batch, possibly none: ``pixels`` [b, c, H, W], ``labels`` and ``indices`` int64 [b]."""

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    skipped: list[tuple[int, str]] = field(default_factory=list)  # (index, reason) of each unreadable image
    seconds: float = 0.0  # that reading, decoding and transforming took

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; the DataLoader's pinning thread calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory(), indices=self.indices.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """The batch with pixels and labels on ``device``; indices stay, since they only name samples."""
        with stage("transfer to the device"):
            return replace(self, pixels=self.pixels.to(device, non_blocking=True), labels=self.labels.to(device, non_blocking=True))


class TaskDataset(Dataset[Item]):
    """A task's images after a transform; ``dataset[epoch, index]`` is one of them.

    ``transform`` makes a tensor [3, H, W] of an RGB image. With a ``seed`` it may be random: the generators of
    ``random``, NumPy and torch are seeded by (seed, epoch, index) around it, and are afterwards as they were. Files are
    decoded at the scale that the transform needs, unless ``full_decode`` forbids it.
    """

    def __init__(self, task: Task, transform: Transform, seed: int | None = None, full_decode: bool = False) -> None:
        self.samples, self.labels = task.samples, task.labels  # not the task, which may carry a million cached strings
        self.transform, self.seed = transform, seed
        self.side = None if full_decode else getattr(transform, "side", None)
        with seeded(0):
            self.blank = transform(Image.new("RGB", (64, 64)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        try:
            image = self._decoded(index)
        except UnreadableImage as error:
            return Unreadable(index, error.reason)
        return self._transformed(image, epoch, index), int(self.labels[index]), index

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """A batch; the DataLoader asks for whole ones."""
        began = time.perf_counter()
        with stage("decode"):
            batch = self._batch(keys)
        return replace(batch, seconds=time.perf_counter() - began)

    def _batch(self, keys: Sequence[Key]) -> Batch:
        indices = np.array([index for _, index in keys], dtype=np.int64)
        under, places = located(self.samples, indices)
        if isinstance(under, ReadySamples):
            return self._at_once(torch.from_numpy(under.pixels_at(places)), indices, under.unreadable, places)
        if isinstance(under, ArraySamples) and getattr(self.transform, "batches", False):
            with suppress(OSError):  # an image that cannot be read: one by one it shows which
                return self._at_once(_channels_first(under.pixels_at(places)), indices)
        return collate([self[key] for key in keys], self.blank)

    def _at_once(self, pixels: Tensor, indices: Indices, unreadable: Mapping[int, str] = MappingProxyType({}), places: Any = ()) -> Batch:
        skipped = [(int(index), unreadable[int(place)]) for index, place in zip(indices, places, strict=False) if int(place) in unreadable]
        kept = ~np.isin(indices, [index for index, _ in skipped])
        rows = torch.from_numpy(indices[kept])
        return Batch(pixels[torch.from_numpy(kept)] if skipped else pixels, torch.from_numpy(self.labels[indices[kept]]), rows, skipped)

    def _decoded(self, index: int) -> Image.Image:
        under, places = located(self.samples, [index])
        if self.side is not None and isinstance(under, EncodedSamples):
            return under.image(int(places[0]), self.side)
        return self.samples.image(index)

    def _transformed(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        if self.seed is None:
            return self.transform(image)
        with seeded(self.seed, epoch, index):
            return self.transform(image)


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [b, H, W] or [b, H, W, 3] as [b, c, H, W]."""
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within the block, ``random``, NumPy and torch (CPU) draw what ``numbers`` decide; afterwards they go on as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (transforms use the global ones)
    first, second, third = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002
    torch.default_generator.manual_seed(third)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def collate(items: Sequence[Item], blank: Tensor) -> Batch:
    """One batch of ``items``; ``blank`` is what the transform makes of any image: the shape of a batch without images."""
    read = [item for item in items if not isinstance(item, Unreadable)]
    return Batch(
        pixels=default_collate([pixels for pixels, _, _ in read]) if read else blank.new_empty((0, *blank.shape)),
        labels=torch.tensor([label for _, label, _ in read], dtype=torch.int64),
        indices=torch.tensor([index for _, _, index in read], dtype=torch.int64),
        skipped=[(item.index, item.reason) for item in items if isinstance(item, Unreadable)],
    )


class Loader:
    """The batches of a task, in the given order; made by :func:`make_loader`. May be iterated once per epoch."""

    def __init__(self, loader: DataLoader[Item], keys: _Keys) -> None:
        self._loader, self._keys = loader, keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in stages.timed("waiting for images", self._loader):
                stages.count("images read", len(batch))
                if self._loader.num_workers:
                    stages.beside("decode", batch.seconds)
                yield replace(batch, labels=_owned(batch.labels), indices=_owned(batch.indices))
        except RuntimeError as error:
            raise _worker_error(error) from error

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next: it decides what random transforms do, and, through a batch sampler, the batches."""
        self._keys.set_epoch(epoch)


def _owned(tensor: Tensor) -> Tensor:
    """A copy outside shared memory: who collects the labels of thousands of batches would hold as many open files."""
    return tensor.clone() if tensor.is_shared() else tensor


class _Keys:
    """Batches of (epoch, index). Loader processes outlive an epoch; so each key tells them which one it belongs to."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.epoch = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        for batch in self.batches:
            yield [(epoch, int(index)) for index in batch]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)


def make_loader(
    task: Task,
    transform: Transform,
    batches: Batches,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch: int = 4,
    seed: int | None = None,
    full_decode: bool = False,
) -> Loader:
    """A :class:`Loader` of the ``batches`` of ``task``.

    ``num_workers`` processes are started by the first iteration and serve all later ones; each decodes up to ``prefetch``
    batches ahead. ``pin_memory`` makes copies to a GPU asynchronous. A random transform needs the ``seed``.
    """
    dataset, keys = TaskDataset(task, transform, seed, full_decode), _Keys(batches)
    workers = min(num_workers, len(batches))
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # --num-workers is the user's to choose
    loader = DataLoader(
        dataset,
        batch_sampler=keys,  # type: ignore[arg-type]  # indices are keys here
        num_workers=workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # the data set makes whole batches
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),  # else each iteration would draw from the global generator
    )
    return Loader(loader, keys)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _start_worker(worker_id: int) -> None:
    """Leave signals to the parent process and keep to one thread.

    Ctrl-C and SLURM signal every process of a job. The parent must survive that to write its checkpoint, which it does not
    when its workers die under it; they end when it tells them to, or when it is gone.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows, where SIGTERM ends the worker as ever
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)


def _end_when_told_by(parent: int) -> None:
    """Heed SIGTERM from the parent alone. It must be heeded: Python sends it to workers that are left at its exit, and waits."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _worker_error(error: RuntimeError) -> Exception:
    """What to tell about an error that came out of the DataLoader: the death of a worker is seldom a defect."""
    if re.search(r"DataLoader worker \(pid", str(error)):
        return UserError(
            "A data-loading process was killed, most often for want of memory or shared memory (/dev/shm);"
            " use fewer --num-workers or a smaller --batch-size."
        )
    return error


def contiguous_batches(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[range]:
    """The batches that process ``rank`` of ``world`` works on, out of ``range(n)`` cut into batches of ``batch_size``.

    Each process has a run of whole batches, the same as a single process would make of these images; all ranks together
    have each index once, in order of rank. With more processes than batches, some have none.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {batch_size}.")
    total = -(-n // batch_size)
    mine = range(total * rank // world, total * (rank + 1) // world)
    return [range(number * batch_size, min((number + 1) * batch_size, n)) for number in mine]


class SkippedImages:
    """The unreadable images of a run, and how many of them are allowed (``--max-skipped``)."""

    def __init__(self, max_skipped: int = 0) -> None:
        self.max_skipped = max_skipped
        self.entries: list[tuple[str, str]] = []  # (sample id, reason)

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, sample_id: str, reason: str) -> None:
        """Note one image."""
        self.entries.append((sample_id, reason))

    def extend(self, entries: Iterable[tuple[str, str]]) -> None:
        """Note several images, e.g. the entries of another process."""
        self.entries.extend(entries)

    def add_batch(self, task: Task, batch: Batch) -> None:
        """Note the unreadable images of a batch of ``task``."""
        self.extend((task.samples.sample_id(index), reason) for index, reason in batch.skipped)

    def check(self) -> None:
        """A :class:`UserError` when there are more than allowed; called after each batch, it ends a hopeless run early."""
        if len(self) <= self.max_skipped:
            return
        sample_id, reason = self.entries[0]
        images = "1 image is" if len(self) == 1 else f"{len(self)} images are"
        raise UserError(
            f"{images} unreadable, more than --max-skipped {self.max_skipped} allows; the first is '{sample_id}' ({reason.rstrip('.')})."
        )

    def write(self, output: Path) -> Path | None:
        """List the images in ``<output>.skipped.txt``, sorted: sample id, tab, reason. Returns that path.

        Without any, there is no such file: that of an earlier run is removed, and None is returned.
        """
        listed = output.with_name(f"{output.name}.skipped.txt")
        if not self.entries:
            listed.unlink(missing_ok=True)
            return None
        write_text(listed, "".join(f"{sample_id}\t{reason}\n" for sample_id, reason in sorted(self.entries)))
        return listed
