"""Where each query's positives stand among the gallery, without a full ranking and without a matrix of all similarities.

Every measure of retrieval follows from these ranks (:mod:`engine.retrieval_scores`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datasets.retrieval.relevance import Pairs, Relevance

WORK = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}  # bytes that the work on a block of queries may take
BYTES_PER_ITEM = {"cpu": 24, "cuda": 48}  # of it for each gallery item: its similarity, its key twice and what a sort needs besides
BYTES_PER_PAIR = 48  # and for each positive or ignored item: its row, its column, its key and its rank
PART = 2**22  # ranks that are scored at once
LAST = torch.iinfo(torch.int64).max  # the key of what is ignored, and of the padding behind a query's positives


@dataclass(frozen=True, eq=False)
class Ranks:
    """0-based ranks of every query's positives, ascending: query q's are ``values[starts[q]:starts[q + 1]]``.

    ``values`` is int32 [P] for P positives of all queries together, ``starts`` int64 [Q + 1].
    """

    values: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.int32], counts: NDArray[np.int64]) -> Ranks:
        """The ranks of all queries in one array, and how many of them each query has."""
        return cls(values, np.concatenate(([0], np.cumsum(counts))))

    @classmethod
    def joined(cls, parts: Sequence[Ranks]) -> Ranks:
        """The queries of all parts, one part after the other."""
        return cls.of(np.concatenate([part.values for part in parts]), np.concatenate([part.counts for part in parts]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> NDArray[np.int32]:
        return self.values[self.starts[query] : self.starts[query + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """R, the number of positives of each query, int64 [Q]."""
        return np.diff(self.starts)

    def parts(self, size: int = PART) -> Iterator[Ranks]:
        """The same queries in order, in parts of about ``size`` ranks."""
        cuts = np.searchsorted(self.starts, np.arange(size, len(self.values), size))
        edges = np.unique(np.concatenate(([0], cuts, [len(self)])))
        for start, stop in pairwise(edges.tolist()):
            first, last = self.starts[[start, stop]]
            yield Ranks(self.values[first:last], self.starts[start : stop + 1] - first)


def rank_positives(
    query: Tensor,
    gallery: Tensor,
    relevance: Mapping[str, Relevance],
    device: torch.device | str = "cpu",
    block: int | None = None,
    progress: bool = False,
    queries: range | None = None,
) -> dict[str, Ranks]:
    """For each way of judging, the ranks of every query's positives among what is not ignored.

    The rank of a positive p of query q is the number of items g that are not ignored and have s(q, g) > s(q, p), or
    s(q, g) = s(q, p) and a smaller index than p. s is the dot product in float32, the cosine for unit rows; equal rows of the
    gallery tie exactly. All ways of judging share the similarities. Takes O(Q G (D + log G)) time and bounded memory (``WORK``).

    Args:
        query: [Q, D].
        gallery: [G, D]; with ``leave_one_out``, the queries.
        relevance: ways of judging, each of Q queries.
        device: where similarities are computed and sorted.
        block: queries at a time; by default as many as memory allows. It does not change results beyond rounding.
        progress: whether to show a bar.
        queries: those to rank for, without gaps; by default all. Several processes share the work so.

    Raises:
        ValueError: for shapes that do not fit, and for features that are not finite.
    """
    _check(query, gallery, relevance)
    device = torch.device(device if torch.device(device).type == "cuda" else "cpu")
    gallery, copies = _distinct(gallery)
    query, gallery = (rows.to(device, torch.float32) for rows in (query, gallery))
    copies = copies.to(device)
    queries = range(len(query)) if queries is None else queries
    block = block or _block(len(copies), relevance, device)
    found: dict[str, list[NDArray[np.int32]]] = {name: [np.empty(0, dtype=np.int32)] for name in relevance}
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for start in tqdm(queries[::block], desc="ranking", unit="block", disable=not progress, leave=False):
            keys = _keys(query[start : min(start + block, queries.stop)] @ gallery.T, copies)
            for name, judged in relevance.items():
                found[name].append(_ranks(keys, judged, start))
    asked = slice(queries.start, queries.stop)
    return {name: Ranks.of(np.concatenate(parts), relevance[name].counts[asked]) for name, parts in found.items()}


def _check(query: Tensor, gallery: Tensor, relevance: Mapping[str, Relevance]) -> None:
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"features are [Q, D] and [G, D], not {list(query.shape)} and {list(gallery.shape)}")
    for name, judged in relevance.items():
        if len(judged) != len(query):
            raise ValueError(f"'{name}' judges {len(judged)} queries, but there are {len(query)}")
        if judged.leave_one_out and len(query) != len(gallery):
            raise ValueError(f"'{name}' leaves the query out of a gallery of {len(gallery)} that cannot be the {len(query)} queries")
    for side, rows in (("query", query), ("gallery", gallery)):
        finite = rows.float().sum(dim=1).isfinite()  # sums keep what is not finite, and take less room than a mask
        if not finite.all():
            raise ValueError(f"{int((~finite).sum())} {side} features are not finite, the first that of item {int(finite.long().argmin())}")


def _block(n_gallery: int, relevance: Mapping[str, Relevance], device: torch.device) -> int:
    """How many queries at a time stay within ``WORK``; at least one."""

    def widest(judged: Relevance) -> int:
        ignored = judged.junk.counts.max(initial=0) if judged.junk is not None else 0
        return int(judged.counts.max(initial=0) + ignored)

    pairs = max(map(widest, relevance.values()), default=0)
    return max(1, WORK[device.type] // (n_gallery * BYTES_PER_ITEM[device.type] + pairs * BYTES_PER_PAIR + 1))


def _distinct(gallery: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of the gallery, and for each item its row among them, int64 [G].

    A matrix product may round equal rows differently, by where in its tiles they lie, so each different row is multiplied once.
    """
    rows = np.ascontiguousarray(gallery.detach().float().cpu().numpy())
    digests = np.array([hashlib.blake2b(row, digest_size=16).digest() for row in rows], dtype="S16")
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return gallery, torch.arange(len(rows))
    return gallery[torch.from_numpy(first)], torch.from_numpy(inverse)


def _keys(similarities: Tensor, copies: Tensor) -> Tensor:
    """Integers that ascend from the most similar item to the least, and among equally similar ones with their index.

    int64 [block, G]; the upper half of each comes from the float's bits, the lower half is the index. Overwrites ``similarities``.
    """
    bits = similarities.add_(0.0).view(torch.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # the bits of negative floats descend as the numbers ascend
    if len(copies) > bits.shape[1]:
        bits = bits[:, copies]
    return bits.long().bitwise_left_shift_(32).neg_().add_(torch.arange(len(copies), device=bits.device))


def _ranks(keys: Tensor, judged: Relevance, start: int) -> NDArray[np.int32]:
    """The ranks of the positives of a block of queries, query after query: how many keys that count are smaller than theirs."""
    stop = start + len(keys)
    own, inside = _own_keys(keys, judged.relevant(start, stop))
    ranking = keys.clone()
    ranking[_on(keys.device, judged.ignored(start, stop))] = LAST
    ranks = torch.searchsorted(_sorted(ranking), own)
    return ranks[inside].int().cpu().numpy()


def _own_keys(keys: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The keys of each query's positives, ascending and padded to equal lengths; and a mask of those that are no padding."""
    rows, columns = _on(keys.device, pairs)
    counts = rows.bincount(minlength=len(keys))
    inside = torch.arange(int(counts.max()), device=keys.device) < counts[:, None]
    own = torch.full(inside.shape, LAST, device=keys.device)
    own[inside] = keys[rows, columns]  # pairs come row by row, as the mask is read
    return _sorted(own), inside


def _on(device: torch.device, pairs: Pairs) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.from_numpy(part).to(device) for part in pairs)
    return rows, columns


def _sorted(keys: Tensor) -> Tensor:
    """Each row ascending. On the CPU in place, by NumPy's sort, which is vectorised where PyTorch's is not, and in threads."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda rows: rows.sort(axis=1), np.array_split(keys.numpy(), threads)))
    return keys
