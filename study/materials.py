"""What the cells of a study are made from: tasks, encoders, class embeddings, each loaded once; and the hashes that identify them.

The weights of a model and the images of a task are hashed whole the first time. The hash is kept in OUT/hashes with a *stamp*,
which is quick to make and changes when the thing may have changed: names, sizes and times of modification of the files, and of
a model that open_clip or a hub knows by name that name. Tasks whose images are drawn or lie in arrays have no stamp and
are hashed once in every process, which takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import Interrupted
from common.files import read_json, sha256_of_file, slug, write_json
from datasets.image_files import ImageFiles
from datasets.prompts import chosen_templates, prompt_names
from datasets.registry import checked_name, load_task
from datasets.retrieval.collection import Collection
from datasets.retrieval.table import load_retrieval
from datasets.retrieval.task import RetrievalTask
from datasets.samples import EncodedSamples, located
from datasets.task import Task
from engine.classifier import Classifier
from engine.embed import LoadOptions
from engine.runtime import Runtime
from inversion.sides import Features
from merging.heads import Heads
from merging.sources import Source, open_weights
from merging.task_names import PROMPTS as MERGING
from models.encoder import Encoder
from models.selection import Selection, select_encoder
from models.zoo import resolve
from study.plan import Plan
from study.quiet import quiet

PIXELS = 3 * 224 * 224  # bytes of an image in the pixel cache, roughly
CACHE_SHARE = 0.1  # of the free disk space that the pixel cache of one task may take


class Materials:
    """The tasks and encoders of a plan, for one process; only the last encoder is kept."""

    def __init__(self, plan: Plan, out: Path, runtime: Runtime, load: LoadOptions) -> None:
        self.plan, self.out, self.runtime, self.load = plan, out, runtime, load
        self._tasks: dict[tuple[str, str], Task] = {}
        self._retrievals: dict[str, RetrievalTask] = {}
        self._weights: dict[str, str] = {}
        self._broken: dict[tuple[str, Path | None], Exception] = {}  # what could not be loaded: not to be tried for every cell
        self._encoder: tuple[tuple[str, Path | None], Selection] | None = None
        self._classes: tuple[tuple[Any, ...], tuple[Classifier, float]] | None = None
        self._features: tuple[tuple[str, str], Features] | None = None
        self._base: tuple[str, Source] | None = None
        self._heads: Heads | None = None

    def task(self, name: str, split: str) -> Task:
        """One split of a task, with the plan's prompts."""
        if (name, split) not in self._tasks:
            plan, templates = self.plan, self.templates(name)
            self._tasks[name, split] = load_task(name, split, data_dir=plan.data_dir, val_p=plan.val_p, templates=templates)
        return self._tasks[name, split]

    def templates(self, name: str) -> tuple[str, ...] | None:
        """The prompts that the plan gives a task, to one of merging the merging benchmarks'; None where it leaves the task its own."""
        base, prompts = checked_name(name).base, self.plan.prompts
        if prompts is None and self.plan.merging and name in self.plan.merging.names and MERGING in prompt_names(base):
            prompts = MERGING
        return None if prompts is None else chosen_templates(base, prompts)

    def images(self, name: str, split: str) -> dict[str, Any]:
        """What a cell depends on that looks at the images of a task and answers with its class names."""
        task = self.task(name, split)
        classes = hashlib.sha256(json.dumps(task.classnames).encode()).hexdigest()
        return {"fingerprint": self.fingerprint(name, split), "classnames_sha256": classes, "templates": list(task.templates)}

    def fingerprint(self, name: str, split: str) -> str:
        """The task's fingerprint; of unchanged files it is looked up."""
        task = self.task(name, split)
        self._settle_fingerprint(f"{name}_{split}", task, task)
        return task.fingerprint

    def retrieval(self, name: str) -> RetrievalTask:
        """A data set as a retrieval task, in the published split, with the fingerprints of both sides looked up."""
        if name not in self._retrievals:
            task = load_retrieval(name, data_dir=self.plan.data_dir)
            for side, of in (("query", task.query), ("gallery", task.gallery)):
                images = of.as_task(task.name, f"{task.split}_{side}") if of.modality == "image" else None
                self._settle_fingerprint(f"{name}_{side}", of, images)
            self._retrievals[name] = task
        return self._retrievals[name]

    def features(self, model: str, task: str) -> Features:
        """The features of one data set by one model, kept in OUT/features; those of the last data set alone stay in memory."""
        if self._features is None or self._features[0] != (model, task):
            self._features = None
            selection = self.selection(model)
            selection.encoder.to(self.runtime.device)
            self._features = (model, task), Features(quiet(self.runtime), selection, self.load, self.out / "features")
        return self._features[1]

    def selection(self, model: str, checkpoint: Path | None = None) -> Selection:
        """The encoder of a model as published, or of one of its checkpoints."""
        wanted = (model, checkpoint)
        if wanted in self._broken:
            raise self._broken[wanted]
        if self._encoder is None or self._encoder[0] != wanted:
            self.drop_encoder()
            try:
                self._encoder = wanted, select_encoder(None if checkpoint else model, checkpoint, {})
            except Interrupted:
                raise
            except Exception as error:
                self._broken[wanted] = error
                raise
        return self._encoder[1]

    def drop_encoder(self) -> None:
        """Make room."""
        self._encoder = self._classes = self._features = self._base = self._heads = None

    def base(self, model: str) -> Source:
        """A model as merging opens it."""
        if self._base is None or self._base[0] != model:
            self._base = model, open_weights(model)
        return self._base[1]

    def heads(self, encoder: Encoder) -> Heads:
        """The zero-shot heads of an encoder, kept in OUT/heads."""
        if self._heads is None or self._heads.encoder is not encoder:
            self._heads = Heads(encoder, self.out / "heads")
        return self._heads

    def weights(self, model: str) -> str:
        """SHA-256 of a model's weights; looked up where the model's files, or its name, are those of an earlier look."""
        if model not in self._weights:
            self._weights[model] = self._looked_up(model, _stamp_of_model(model), lambda: self.selection(model).sha256)
        return self._weights[model]

    def files_sha256(self, name: str, files: Sequence[Path]) -> str:
        """One SHA-256 of the contents of files, in their order; of unchanged files it is looked up."""
        stamp = [[str(file), *stamp] for file, stamp in zip(files, _stamps(files), strict=True)]
        contents = (sha256_of_file(file) for file in files)
        return self._looked_up(name, stamp, lambda: hashlib.sha256("".join(contents).encode()).hexdigest())

    def classifier(self, model: str, task: Task) -> tuple[Classifier, float]:
        """The untuned model with the class texts of a task embedded, and the seconds that took. Both its splits share it."""
        wanted = (model, task.classnames, task.templates)
        encoder = self.selection(model).encoder.to(self.runtime.device)
        if self._classes is None or self._classes[0] != wanted:
            started = time.perf_counter()
            with torch.no_grad(), self.runtime.autocast():
                classifier = Classifier(encoder, task.prompts()).to(self.runtime.device)
            self._classes = wanted, (classifier, time.perf_counter() - started)
        return self._classes[1]

    def load_options(self, task: Task) -> LoadOptions:
        """How to load the images of a task.

        Where nothing was said of a pixel cache, there is one in OUT/pixels for image files that are trained on or tested on again
        and again, unless it would take more than a tenth of the free space.
        """
        under, _ = located(task.samples, [])
        again = self.plan.tunings or self.plan.merging
        if self.load.pixel_cache or not (again and isinstance(under, EncodedSamples)):
            return self.load
        fits = PIXELS * len(task) <= CACHE_SHARE * shutil.disk_usage(self.out).free
        return replace(self.load, pixel_cache=self.out / "pixels") if fits else self.load

    def _settle_fingerprint(self, name: str, of: Task | Collection, images: Task | None) -> None:
        """Let ``of`` know its fingerprint; of unchanged image files it is looked up."""
        if "fingerprint" not in of.__dict__:  # where functools.cached_property puts it
            stamp = None if images is None else _stamp_of_files(images)
            of.__dict__["fingerprint"] = self._looked_up(name, stamp, lambda: of.fingerprint)

    def _looked_up(self, name: str, stamp: Sequence[Any] | None, make: Callable[[], str]) -> str:
        """The hash of what has this stamp: kept from an earlier time, or made."""
        if stamp is None:
            return make()
        mark = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
        path = self.out / "hashes" / f"{slug(name)[-80:]}-{mark[:12]}.json"
        if path.exists() and (kept := read_json(path)).get("stamp") == mark:
            return str(kept["sha256"])
        made = make()
        write_json(path, {"name": name, "stamp": mark, "sha256": made})
        return made


def _stamp_of_files(task: Task) -> Sequence[Any] | None:
    """The listing, and size and time of modification of every image file; None for a task that is not made of files of its own."""
    under, places = located(task.samples, np.arange(len(task)))
    if not isinstance(under, ImageFiles):
        return None
    digest = hashlib.sha256()
    for place in places.tolist():
        digest.update(repr(_stamp(partial(under.stat, place))).encode())
    return task.name, task.split, task.listing, digest.hexdigest()


def _stamp_of_model(model: str) -> Sequence[Any]:
    """Where the weights come from; of files on this machine also their sizes and times of modification."""
    source = resolve(model)
    places = [Path(place).expanduser() for place in (source.architecture, source.pretrained) if place]
    files = [file for place in places if place.exists() for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    stamps = [[str(file), *stamp] for file, stamp in zip(files, _stamps(files), strict=True)]
    return source.kind, source.architecture, source.pretrained, stamps


def _stamps(paths: Iterable[Path]) -> Iterable[tuple[int, int]]:
    return (_stamp(path.stat) for path in paths)


def _stamp(stat: Callable[[], os.stat_result]) -> tuple[int, int]:
    try:
        of = stat()
    except OSError:
        return -1, -1  # a missing file is told when it is read
    return of.st_size, of.st_mtime_ns
