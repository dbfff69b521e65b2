"""Embed a task: every image and every class as a unit vector."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from common.stages import stage
from datasets.task import Task
from engine.classifier import average_templates, frozen_text_features
from engine.embeddings import Embeddings, describe
from engine.loading import Batch, SkippedImages, contiguous_batches, make_loader
from engine.pixel_cache import with_cached_pixels
from engine.runtime import Runtime
from models.encoder import Encoder
from models.selection import Selection

KEEP_ON_DEVICE = 64  # batches of embeddings that wait on the device before they are copied back together


@dataclass(frozen=True)
class LoadOptions:
    """How images are brought to the device."""

    batch_size: int = 128
    num_workers: int = 4
    max_skipped: int = 0
    progress: bool = False
    full_decode: bool = False
    pixel_cache: Path | None = None

    @property
    def decode(self) -> str:
        """How JPEG files are decoded, as the metadata of embeddings says it."""
        return "full" if self.full_decode else "reduced"

    @classmethod
    def of(cls, args: Namespace) -> LoadOptions:
        """What the command line says (:func:`common.arguments.add_run_arguments`)."""
        return cls(args.batch_size, args.num_workers, args.max_skipped, args.progress, args.full_decode, args.pixel_cache)


@dataclass(frozen=True)
class ImageEmbeddings:
    """Unit image embeddings float32 [N, D] of the samples at ``indices`` [N] of a task, in the task's order."""

    embeddings: NDArray[np.float32]
    indices: NDArray[np.int64]
    skipped: SkippedImages
    seconds: float


def batches_of(runtime: Runtime, encoder: Encoder, task: Task, options: LoadOptions, skipped: SkippedImages) -> Iterator[Batch]:
    """This process's share of a task's images, as bytes on the device, in order; unreadable ones are left out."""
    geometry = encoder.preprocess.geometry
    task = with_cached_pixels(runtime, geometry, task, options)
    shares = contiguous_batches(len(task), options.batch_size, runtime.rank, runtime.world)
    loader = make_loader(
        task, geometry, shares, num_workers=options.num_workers, pin_memory=runtime.pin_memory, full_decode=options.full_decode
    )
    for batch in tqdm(loader, desc=f"{task.name} {task.split}", disable=not (options.progress and runtime.is_main), leave=False):
        skipped.add_batch(task, batch)
        skipped.check()
        if len(batch):
            yield batch.to(runtime.device)


class BroughtBack:
    """Rows that are made batch by batch on the device and copied to the CPU many batches at a time, since each copy waits for it."""

    def __init__(self) -> None:
        self.done: list[Tensor] = []
        self.waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """The rows [b, D] of one batch."""
        self.waiting.append(rows.float())
        if len(self.waiting) == KEEP_ON_DEVICE:
            self._copy()

    def together(self, width: int) -> Tensor:
        """All rows float32 [N, D] on the CPU, in the order in which they came; [0, ``width``] when none came."""
        self._copy()
        return torch.cat(self.done) if self.done else torch.empty(0, width)

    def _copy(self) -> None:
        if self.waiting:
            with stage("transfer back"):
                self.done.append(torch.cat(self.waiting).cpu())
            self.waiting.clear()


def of_all_processes(runtime: Runtime, skipped: SkippedImages) -> SkippedImages:
    """The unreadable images that all processes met; a :class:`UserError` when together they are too many."""
    together = SkippedImages(skipped.max_skipped)
    together.extend(runtime.gather_objects(skipped.entries))
    together.check()
    return together


def embed_images(
    runtime: Runtime, encoder: Encoder, task: Task, options: LoadOptions, *, adapted: bool = True, skipped: SkippedImages | None = None
) -> ImageEmbeddings:
    """Embed every image of ``task``; with ``adapted=False`` stop at the image tower's features, before any adapter.

    Unreadable images are added to ``skipped``, by default a new list that ends the run above --max-skipped.
    """
    encoder.to(runtime.device)
    encode = encoder.encode_image if adapted else encoder.image_features
    skipped = SkippedImages(options.max_skipped) if skipped is None else skipped
    rows = BroughtBack()
    indices: list[Tensor] = []
    started = time.perf_counter()
    with torch.inference_mode(), runtime.autocast():
        for batch in batches_of(runtime, encoder, task, options, skipped):
            rows.add(encode(batch.pixels))
            indices.append(batch.indices)
    return _in_order(runtime, rows.together(encoder.embed_dim), indices, skipped, started)


def _in_order(runtime: Runtime, rows: Tensor, indices: list[Tensor], skipped: SkippedImages, started: float) -> ImageEmbeddings:
    """Bring the processes' shares together, in the task's order."""
    positions = torch.cat(indices).cpu() if indices else torch.empty(0, dtype=torch.int64)
    positions = runtime.gather_rows(positions.to(runtime.device))
    rows = runtime.gather_rows(rows if runtime.world == 1 else rows.to(runtime.device))
    order = positions.argsort()
    seconds = time.perf_counter() - started
    return ImageEmbeddings(rows[order].numpy(), positions[order].numpy(), of_all_processes(runtime, skipped), seconds)


def embed_classes(runtime: Runtime, encoder: Encoder, task: Task) -> NDArray[np.float32]:
    """Unit text embeddings float32 [C, D]: per class the mean of its prompts' embeddings, normalised."""
    encoder.to(runtime.device)
    with torch.inference_mode(), runtime.autocast():
        prompts = [prompt for of_class in task.prompts() for prompt in of_class]
        embeddings = encoder.adapt_text(frozen_text_features(encoder, prompts))
        return average_templates(embeddings, len(task.templates)).float().cpu().numpy()


def embed_task(runtime: Runtime, selection: Selection, task: Task, options: LoadOptions) -> tuple[Embeddings, SkippedImages]:
    """The embeddings file's content for ``task``, and the images that could not be read."""
    with in_background(lambda: task.fingerprint):
        images = embed_images(runtime, selection.encoder, task, options)
        started = time.perf_counter()
        texts = embed_classes(runtime, selection.encoder, task)
        text_seconds = time.perf_counter() - started
    check_rows(task, images.embeddings, texts)
    metadata = describe_run(runtime, selection, task, options, images.seconds, text_seconds, len(images.skipped))
    ids = [task.samples.sample_id(int(index)) for index in images.indices]
    return Embeddings(images.embeddings, texts, task.labels[images.indices], ids, metadata), images.skipped


def describe_run(
    runtime: Runtime, selection: Selection, task: Task, options: LoadOptions, seconds: float, text_seconds: float, n_skipped: int
) -> dict[str, str]:
    """The metadata of embeddings of ``task``: of what, by what, how, and how long it took."""
    return describe(
        model=selection.model,
        tuning=selection.tuning,
        checkpoint_sha256=selection.sha256,
        dataset=task.name,
        split=task.split,
        fingerprint=task.fingerprint,
        classnames=task.classnames,
        templates=task.templates,
        precision=runtime.precision,
        checkpoint=selection.checkpoint,
        logit_scale=f"{selection.encoder.logit_scale.exp().item():.9g}",
        embedding_seconds=f"{seconds:.3f}",
        text_seconds=f"{text_seconds:.3f}",
        n_skipped=str(n_skipped),
        batch_size=str(options.batch_size),
        decode=options.decode,
        device=runtime.device.type,
        processes=str(runtime.world),
    )


def check_rows(task: Task, images: NDArray[np.float32], texts: NDArray[np.float32]) -> None:
    """A :class:`UserError` for embeddings that are none: of no image, or not finite."""
    if not len(images):
        raise UserError(f"No image of {task.name} could be read, so there is nothing to embed.")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise UserError(
            f"The embeddings of {task.name} are not finite; the model's weights have diverged, "
            "or overflow in fp16 (then use --precision bf16 or fp32)."
        )


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    """Do ``work`` in a thread while the block runs; hashing files leaves the interpreter free for the loop."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield
        future.result()
