"""Which items of a gallery are relevant to which query, without a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows, counted from the first query of a block, and columns: gallery indices


@dataclass(frozen=True, eq=False)
class Lists:
    """One list of gallery indices per query: query q's is ``values[starts[q]:stops[q]]``, ascending.

    Queries may share a list, so those of all pairs with equal labels take no more room than the labels.
    """

    values: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | NDArray[np.int64]]) -> Lists:
        """The given lists; within one, the order does not matter and what is there twice counts once."""
        parts = [np.unique(np.asarray(part, dtype=np.int64)) for part in lists]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        stops = np.cumsum(counts)
        values = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return cls(values, stops - counts, stops)

    @classmethod
    def same_label(cls, query: NDArray[np.int64], gallery: NDArray[np.int64]) -> Lists:
        """For each query the items of the gallery with its label. Takes O((Q + G) log G) time and O(Q + G) memory."""
        order = np.argsort(gallery, kind="stable")
        labels = gallery[order]
        return cls(order, np.searchsorted(labels, query, "left"), np.searchsorted(labels, query, "right"))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, query: int) -> NDArray[np.int64]:
        return self.values[self.starts[query] : self.stops[query]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How long each query's list is, int64 [Q]."""
        return self.stops - self.starts

    def pairs(self, start: int, stop: int) -> Pairs:
        """The lists of the queries ``start`` to ``stop`` as pairs."""
        starts, counts = self.starts[start:stop], self.counts[start:stop]
        rows = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        return rows, self.values[np.arange(len(rows)) - before[rows] + starts[rows]]


@dataclass(frozen=True, eq=False)
class Relevance:
    """What counts for each query, for evaluation block by block.

    ``positives`` are relevant; ``junk`` is taken out of the ranking before anything is counted, and shares no item with them.
    With ``leave_one_out`` the gallery is the queries: each is among its own positives there, and is taken out too.
    Everything else is irrelevant. A block of similarities is judged so::

        similarities[relevance.ignored(start, stop)] = -inf
        relevant = zeros_like(similarities, dtype=bool)
        relevant[relevance.relevant(start, stop)] = True
    """

    positives: Lists
    junk: Lists | None = None
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        if self.junk is not None and len(self.junk) != len(self.positives):
            raise ValueError(f"{len(self.positives)} lists of positives but {len(self.junk)} of junk")

    @classmethod
    def by_label(cls, query: NDArray[np.int64], gallery: NDArray[np.int64], *, leave_one_out: bool = False) -> Relevance:
        """What has the query's label is relevant."""
        return cls(Lists.same_label(query, gallery), leave_one_out=leave_one_out)

    def __len__(self) -> int:
        return len(self.positives)

    def relevant(self, start: int, stop: int) -> Pairs:
        """The relevant items for the queries ``start`` to ``stop``."""
        rows, columns = self.positives.pairs(start, stop)
        if not self.leave_one_out:
            return rows, columns
        others = columns != rows + start
        return rows[others], columns[others]

    def ignored(self, start: int, stop: int) -> Pairs:
        """What must leave the rankings of the queries ``start`` to ``stop``: their junk, and themselves."""
        own = np.arange(start, min(stop, len(self)) if self.leave_one_out else start)
        rows, columns = (own[:0], own[:0]) if self.junk is None else self.junk.pairs(start, stop)
        return np.concatenate((rows, own - start)), np.concatenate((columns, own))

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many items are relevant to each query, int64 [Q]."""
        return self.positives.counts - int(self.leave_one_out)

    @property
    def without_positives(self) -> int:
        """How many queries have nothing to be found: they cannot be scored, and are left out of every mean."""
        return int((self.counts == 0).sum())
