"""Embed a data set in parts: each is a file that one process makes by itself, in the memory of that part (:mod:`engine.embedding_parts`).

The numbers are to the bit those of an undivided run, since an image is embedded in the batch in which that run has it: a batch that a
cut goes through is embedded for both of its parts, and each keeps its own rows. That is at most one batch more for each cut.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.task import Task
from engine.embed import LoadOptions, check_rows, describe_run, embed_classes, embed_images, in_background
from engine.embedding_parts import SAME, Place, UnreadableSample, part_path, place_of
from engine.embeddings import Embeddings, PartedEmbeddings, read_metadata, save_embeddings
from engine.loading import Batch, SkippedImages
from engine.runtime import Runtime
from models.selection import Selection


class SkippedOfPart(SkippedImages):
    """The unreadable images of a part, after those of parts before it (``earlier``); those of its neighbours do not count.

    ``own`` are the part's positions in the whole data set, ``first`` is the position of the first sample that is loaded for it.
    """

    def __init__(self, max_skipped: int, earlier: Sequence[tuple[str, str]], own: range, first: int) -> None:
        super().__init__(max_skipped)
        self.extend(earlier)
        self.own, self.first, self.unreadable = own, first, list[UnreadableSample]()

    def add_batch(self, task: Task, batch: Batch) -> None:
        """See :class:`SkippedImages`."""
        for index, reason in batch.skipped:
            if self.first + index in self.own:
                name = task.samples.sample_id(index)
                self.add(name, reason)
                self.unreadable.append(UnreadableSample(self.first + index, name, int(task.labels[index]), reason))


class TaskInParts:
    """The parts ``of`` so many of the embeddings of ``task``, whose name as a whole is ``main``; made one by one, by this process alone.

    ``skipped`` are the unreadable images of all parts that it made or found. Raises a UserError for more parts than images.
    """

    def __init__(self, runtime: Runtime, selection: Selection, task: Task, options: LoadOptions, main: Path, of: int) -> None:
        if of > len(task):
            raise UserError(f"--parts {of} is more than the {len(task)} images of {task.name} {task.split}; no part may be empty.")
        self.runtime, self.selection, self.task, self.options = runtime.alone(), selection, task, options
        self.main, self.of = main, of
        self.skipped = SkippedImages(options.max_skipped)

    @cached_property
    def texts(self) -> tuple[NDArray[np.float32], float]:
        """The text embeddings, made once for all parts, and the seconds it took."""
        started = time.perf_counter()
        return embed_classes(self.runtime, self.selection.encoder, self.task), time.perf_counter() - started

    def make(self, number: int, overwrite: bool = False) -> str:
        """Make a part, or keep the one that is there; returns what to tell of it.

        One that is there must be of the same weights, prompts, precision, decoding, and ids and labels of all images, else it is a
        UserError; what is in its images is not read again.
        """
        path = part_path(self.main, number, self.of)
        if path.exists() and not overwrite:
            self._keep(path)
            return f"kept {path} (--overwrite makes it anew)"
        place, embeddings = self._embed(Place(number, self.of, len(self.task), self.task.listing))
        own = SkippedImages()
        own.extend((one.sample_id, one.reason) for one in place.unreadable)
        own.write(path)
        save_embeddings(path, embeddings)
        self.skipped.extend(own.entries)
        n, seconds = place.n_images, float(embeddings.metadata["embedding_seconds"])
        return f"{path}: part {number} of {self.of}, {n} images, {seconds:.1f} s, {n / max(seconds, 1e-3):.0f} images/s"

    def _keep(self, path: Path) -> None:
        metadata = read_metadata(path)
        place = place_of(path, metadata)
        asked = {
            "checkpoint_sha256": self.selection.sha256,
            "classnames": json.dumps(list(self.task.classnames), ensure_ascii=False),
            "templates": json.dumps(list(self.task.templates), ensure_ascii=False),
            "precision": self.runtime.precision,
            "decode": self.options.decode,
        }
        differing = [SAME[key] for key, value in asked.items() if metadata.get(key) != value]
        if (place.whole, place.listing) != (len(self.task), self.task.listing):
            differing.append("images")
        if differing:
            raise UserError(
                f"'{path}' was made from other {' and '.join(differing)}; make it anew with --overwrite, or name another --outfolder."
            )
        self.skipped.extend((one.sample_id, one.reason) for one in place.unreadable)
        self.skipped.check()

    def _embed(self, place: Place) -> tuple[Place, Embeddings]:
        """The part with what could not be read, and its embeddings."""
        own, (first, last) = place.samples, self._whole_batches(place.samples)
        task, loaded = self.task.subset(np.arange(own.start, own.stop)), self.task.subset(np.arange(first, last))
        skipped = SkippedOfPart(self.options.max_skipped, self.skipped.entries, own, first)
        with in_background(lambda: task.fingerprint):
            images = embed_images(self.runtime, self.selection.encoder, loaded, self.options, skipped=skipped)
            texts, text_seconds = self.texts
        positions = images.indices + first
        kept = (positions >= own.start) & (positions < own.stop)
        if not kept.any():
            raise UserError(f"No image of part {place.number} of {place.of} of {task.name} could be read; use fewer --parts.")
        rows, positions = images.embeddings[kept], positions[kept]
        check_rows(task, rows, texts)
        place = replace(place, unreadable=tuple(skipped.unreadable))
        facts = describe_run(self.runtime, self.selection, task, self.options, images.seconds, text_seconds, len(place.unreadable))
        ids = [self.task.samples.sample_id(int(position)) for position in positions]
        return place, Embeddings(rows, texts, self.task.labels[positions], ids, facts | place.metadata(), task.digests)

    def _whole_batches(self, own: range) -> tuple[int, int]:
        """First and last (left out) of the samples in whose batches, as an undivided run cuts them, the part's samples are."""
        size = self.options.batch_size
        return own.start // size * size, min(-(-own.stop // size) * size, len(self.task))


def join(main: Path, max_skipped: int) -> Embeddings:
    """Write the file ``main`` from its parts, all that an undivided run writes; too many unreadable images are a UserError."""
    parts, skipped = PartedEmbeddings(main), SkippedImages(max_skipped)
    skipped.extend((one.sample_id, one.reason) for place in parts.places for one in place.unreadable)
    skipped.check()
    whole = parts.load()
    skipped.write(main)
    save_embeddings(main, whole)
    return whole
