"""What queries and galleries are made of: images or texts with unique ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datasets.samples import Samples
from datasets.task import Groups, Task

UNLABELLED = -1  # stands for the label of an item that has none


@dataclass(frozen=True)
class Texts:
    """Texts with an id each: to texts what :class:`~datasets.samples.Samples` are to images."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.ids):
            raise ValueError(f"{len(self.texts)} texts but {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.texts)

    def sample_id(self, index: int) -> str:
        """A name that is unique in this collection and stays the same between runs and machines."""
        return self.ids[index]

    def digest(self, index: int) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.texts[index].encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Collection:
    """Items in an order: ``items`` are images (:class:`~datasets.samples.Samples`) or :class:`Texts`.

    ``labels`` is int64 [N], where there are labels: 0 or larger, and an index into ``classnames`` where the classes have
    names. ``groups`` is a second division of the items, e.g. into super-classes.
    """

    items: Samples | Texts
    labels: NDArray[np.int64] | None = None
    classnames: tuple[str, ...] = ()
    groups: Groups | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.items):
            raise ValueError(f"{len(self.items)} items but {len(self.labels)} labels")
        if self.labels is not None and len(self.labels) and self.labels.min() < 0:
            raise ValueError("labels must be 0 or larger")

    @classmethod
    def of_texts(cls, texts: Sequence[str], ids: Sequence[str], labels: Sequence[int] | NDArray[np.int64] | None = None) -> Collection:
        """Texts and their ids, with or without labels."""
        return cls(Texts(tuple(texts), tuple(ids)), None if labels is None else np.asarray(labels, dtype=np.int64))

    @classmethod
    def of_task(cls, task: Task) -> Collection:
        """The images of a classification task; the fingerprint is the task's."""
        return cls(task.samples, task.labels, task.classnames, task.groups)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def modality(self) -> str:
        """``image`` or ``text``."""
        return "text" if isinstance(self.items, Texts) else "image"

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts, of a collection of texts."""
        if not isinstance(self.items, Texts):
            raise ValueError("a collection of images has no texts")
        return self.items.texts

    def as_task(self, name: str, split: str) -> Task:
        """The images as what ``engine.embed`` takes; the fingerprint stays. Without labels every label is :data:`UNLABELLED`."""
        if isinstance(self.items, Texts):
            raise ValueError("a collection of texts has no images")
        return Task(name, split, self.items, self._labels, self.classnames, (), self.groups)

    @cached_property
    def ids(self) -> list[str]:
        """The id of every item, in order."""
        return [self.items.sample_id(index) for index in range(len(self))]

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of the content of every item, uint8 [N, 32]. Reads every image, once for all that asks."""
        joined = b"".join(self.items.digest(index) for index in range(len(self)))
        return np.frombuffer(joined, np.uint8).reshape(-1, 32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every item's id, content and label, in order: changes when, and only when, one of them does.

        It is that of :class:`~datasets.task.Task`, so an image embedded for classification is known again here.
        """
        digest = hashlib.sha256()
        for index, label in enumerate(self._labels.tolist()):
            name = self.items.sample_id(index).encode()
            digest.update(b"%d %d %s" % (label, len(name), name))
            digest.update(self.digests[index].tobytes())
        return digest.hexdigest()

    @property
    def _labels(self) -> NDArray[np.int64]:
        return np.full(len(self), UNLABELLED, dtype=np.int64) if self.labels is None else self.labels
