"""Any classification data set as retrieval: an image of the same class is relevant.

Published (Cross the Gap, for the CoOp splits of eleven data sets and for ImageNet): every test image is a query, the training
images are the gallery. That is all of them, also where training draws validation images from them (but of own data). With the
queries' own split as the gallery each query is left out of its own ranking. A side of texts is one prompt per class: the data
set's first template with the class's name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import UserError
from datasets.registry import SOURCES, checked_name, load_task
from datasets.retrieval.collection import Collection, Texts
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask, by_label
from datasets.task import Task, fill

GALLERY_SPLIT = "train"


def classification_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """Queries of ``split``, gallery of ``options.gallery_split``, by default ``train``; ``name`` as ``load_task`` takes it."""
    gallery_split = options.gallery_split or GALLERY_SPLIT
    queries = _images(name, split, data_dir, gallery_split)
    if options.gallery == "text":
        return _among_texts(queries, options)
    gallery = queries if gallery_split == split else _images(name, gallery_split, data_dir, split)
    if queries.classnames != gallery.classnames:
        raise UserError(f"The classes of {name} differ between {split} and {gallery_split}, so no image is relevant by its class.")
    if options.query == "text":
        return by_label(queries.name, split, class_texts(queries), Collection.of_task(gallery))
    images = Collection.of_task(queries)
    return by_label(queries.name, split, images, images if gallery is queries else Collection.of_task(gallery))


def _among_texts(queries: Task, options: Options) -> RetrievalTask:
    """Zero-shot classification as retrieval: one text is relevant to each image. The classes are those of every split."""
    if options.query == "text":
        raise UserError(f"{queries.name} has one text per class, so among texts nothing is relevant; make the query or the gallery images.")
    return by_label(queries.name, queries.split, Collection.of_task(queries), class_texts(queries))


def _images(name: str, split: str, data_dir: Path, opposite: str) -> Task:
    """One side. ``train`` is the whole training split, but opposite ``val``, whose images may be drawn from it."""
    parts = checked_name(name)
    conventions = SOURCES.get(parts.base, {})
    source = conventions.get(parts.convention or next(iter(conventions), ""))
    if split != "train" or opposite == "val" or source is None or source.own_validation:
        return load_task(name, split, data_dir=data_dir)
    whole = source.load(parts.base, split, data_dir)
    if parts.corruption is not None:
        from datasets.corruptions import CorruptedSamples

        whole = replace(whole, samples=CorruptedSamples(whole.samples, parts.corruption))
    return replace(whole, name=str(parts))


def class_texts(task: Task) -> Collection:
    """One prompt per class, with the class's name as its id."""
    template = task.templates[0]
    texts = Texts(tuple(fill(template, name) for name in task.classnames), task.classnames)
    return Collection(texts, np.arange(len(task.classnames), dtype=np.int64), task.classnames)
