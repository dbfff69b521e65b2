"""What is inverted: the images or texts of one side of a retrieval task, or the names of the classes of a data set."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.registry import SOURCES, load_task
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.released_names import Side, dataset_name, split_and_side
from datasets.retrieval.table import RETRIEVAL, load_retrieval
from datasets.retrieval.task import RetrievalTask
from datasets.task import as_templates, fill
from models.encoder import Encoder

MODALITY = {"oti": "image", "ovi": "text"}  # of what each kind inverts
CLASSES = "classes"  # the side of class names


@dataclass(frozen=True, eq=False)
class Items:
    """A collection and where it comes from. ``rows`` int64 [N] are its items' places in ``whole``, which has empty texts too.

    ``task`` is None for class names.
    """

    name: str
    split: str
    side: str
    whole: Collection
    collection: Collection
    rows: NDArray[np.int64]
    task: RetrievalTask | None = None

    @classmethod
    def every(cls, collection: Collection, name: str, split: str, side: str, task: RetrievalTask | None = None) -> Items:
        """All of ``collection``."""
        return cls(name, split, side, collection, collection, np.arange(len(collection)), task)

    @property
    def n_empty(self) -> int:
        """How many texts were left out, since nothing is in them."""
        return len(self.whole) - len(self.collection)


def asked_items(kind: str, args: Namespace) -> Items:
    """The items that the command line asks to invert by ``kind``. Raises :class:`UserError` when the data set has none."""
    split, side = split_and_side(args.split or "", args.side)
    name = dataset_name(args.dataset_name)
    if kind == "ovi" and args.use_class_names:
        return _class_names(name, split or "test", args)
    if kind == "ovi" and name not in RETRIEVAL:
        raise UserError(f"{name} has images, and of text only the names of its classes; to invert those, add --use-class-names.")
    task = load_retrieval(name, split, args.data_dir, _options(kind, name, split, side, args))
    whole = task.query if side == "query" else task.gallery
    return _without_empty(Items.every(whole, task.name, task.split, side, task))


def class_prompts(classnames: Sequence[str], template: str) -> Collection:
    """One text per class name, whose id is the class name: ``template`` with the name in its place, blanks for its underscores."""
    (template,) = as_templates([template])
    names = list(dict.fromkeys(classnames))
    return Collection.of_texts([fill(template, name.replace("_", " ")) for name in names], names)


def count_cut(encoder: Encoder, texts: Sequence[str]) -> int:
    """How many texts reach the end of the context; the tokenizer cuts off what is longer."""
    padding = encoder._tokenizer(["a"])[0, -1]
    return int((encoder._tokenizer(list(texts))[:, -1] != padding).sum())


def _class_names(name: str, split: str, args: Namespace) -> Items:
    if name in RETRIEVAL and name not in SOURCES:
        raise UserError(f"{name} has no class names; leave --use-class-names out to invert its texts.")
    task = load_task(name, split, data_dir=args.data_dir)
    return Items.every(class_prompts(task.classnames, args.template_sentence), task.name, split, CLASSES)


def _options(kind: str, name: str, split: str | None, side: Side, args: Namespace) -> Options:
    """The options of the task: ``side`` is of what is inverted, the other side what the data set has."""
    gallery_split = args.gallery_split
    if name not in RETRIEVAL and side == "query" and gallery_split is None and not args.validate:
        gallery_split = split or "test"  # so that no training images need be there when only the queries are looked at
    modality = MODALITY[kind]
    return Options(
        query=modality if side == "query" else None,
        gallery=modality if side == "gallery" else None,
        gallery_split=gallery_split,
        crop=args.crop,
        distractors=args.distractors,
        summaries=args.summaries,
    )


def _without_empty(items: Items) -> Items:
    """Leave out texts with nothing in them: there is nothing to invert."""
    if items.whole.modality == "image":
        return items
    rows = np.array([row for row, text in enumerate(items.whole.texts) if text.strip()], dtype=np.int64)
    if len(rows) == len(items.whole):
        return items
    if not len(rows):
        raise UserError(f"All {len(items.whole)} texts of {items.name}, split {items.split}, are empty; there is nothing to invert.")
    texts, ids = items.whole.texts, items.whole.ids
    collection = Collection.of_texts([texts[row] for row in rows], [ids[row] for row in rows])
    return Items(items.name, items.split, items.side, items.whole, collection, rows, items.task)
