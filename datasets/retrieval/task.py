"""The RetrievalTask: queries, a gallery, and what is relevant to what, under one protocol or several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from common.errors import UserError
from datasets.retrieval.collection import Collection
from datasets.retrieval.relevance import Relevance

ONLY = ""  # the protocol of a task that has one


@dataclass(frozen=True)
class RetrievalTask:
    """Find the relevant items of ``gallery`` for each item of ``query``.

    ``protocols`` holds one :class:`~datasets.retrieval.relevance.Relevance` per way of judging: of most tasks there is one,
    with the name :data:`ONLY`; the revisited Oxford and Paris have ``easy``, ``medium`` and ``hard``. A task that was read
    with options says so in its name, e.g. ``ROxford5k+1M``.
    """

    name: str
    split: str
    query: Collection
    gallery: Collection
    protocols: Mapping[str, Relevance]

    def __post_init__(self) -> None:
        for relevance in self.protocols.values():
            if len(relevance) != len(self.query) or (relevance.leave_one_out and len(self.gallery) != len(self.query)):
                raise ValueError(f"{self.name}: {len(self.query)} queries, {len(relevance)} judged, {len(self.gallery)} in the gallery")
        for role, collection in {"queries": self.query, "gallery": self.gallery}.items():
            if not len(collection):
                raise UserError(f"The {role} of {self.name}, split {self.split}, are empty; its files are not those of the data set.")
            if (twice := repeated(collection)) is not None:
                raise UserError(f"The {role} of {self.name}, split {self.split}, hold '{twice}' twice; ids must be unique.")

    @property
    def leave_one_out(self) -> bool:
        """Whether queries and gallery are the same, and each query is left out of its own ranking."""
        return any(relevance.leave_one_out for relevance in self.protocols.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over both collections and over what is relevant and ignored under which protocol."""
        digest = hashlib.sha256(f"{self.query.fingerprint} {self.gallery.fingerprint}".encode())
        for protocol, relevance in self.protocols.items():
            digest.update(f" {protocol} {relevance.leave_one_out}".encode())
            for lists in filter(None, (relevance.positives, relevance.junk)):
                for part in (lists.values, lists.starts, lists.stops):
                    digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def by_label(name: str, split: str, query: Collection, gallery: Collection) -> RetrievalTask:
    """The task in which equal labels are relevant; leave-one-out when ``gallery`` is ``query``."""
    if query.labels is None or gallery.labels is None:
        raise ValueError(f"{name}: queries and gallery need labels")
    relevance = Relevance.by_label(query.labels, gallery.labels, leave_one_out=gallery is query)
    return RetrievalTask(name, split, query, gallery, {ONLY: relevance})


def repeated(collection: Collection) -> str | None:
    """An id that two items have, or None."""
    seen: set[str] = set()
    for index in range(len(collection)):
        name = collection.items.sample_id(index)
        if name in seen:
            return name
        seen.add(name)
    return None
