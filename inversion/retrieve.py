"""Score a retrieval whose two sides are native or inverted features, fused or projected."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from datasets.retrieval.task import ONLY, RetrievalTask
from engine.ranking import Ranks, rank_positives
from engine.retrieval_scores import RetrievalScores, RevisitedScores, retrieval_scores, revisited_scores
from inversion.baselines import Projection, projected_features
from inversion.sides import INVERTED, Features, Role, Side, check_items, collection_of, side_features

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Retrieval:
    """The scores under each protocol (of most tasks the only one), of how many queries in what gallery, and the seconds it took."""

    by_protocol: dict[str, RetrievalScores | RevisitedScores]
    n_queries: int
    n_gallery: int
    seconds: float

    @property
    def scores(self) -> dict[str, float]:
        """Every score as a fraction, by its name, e.g. ``mAP`` or, of several protocols, ``mAP_easy``."""
        return {
            name + (f"_{protocol}" if protocol else ""): float(getattr(scores, name))
            for protocol, scores in self.by_protocol.items()
            for name in (field.name for field in fields(scores))
            if name not in ("n_queries", "n_without_positives", "average_precision")
        }

    @property
    def without_positives(self) -> dict[str, int]:
        """How many queries could not be scored under each protocol, since nothing is relevant to them."""
        return {protocol: scores.n_without_positives for protocol, scores in self.by_protocol.items()}


class SidesRows(NamedTuple):
    """Features of queries [Q, D] and gallery [G, D] whose dot products are the similarities."""

    query: Rows
    gallery: Rows


def evaluate_sides(
    features: Features,
    task: RetrievalTask,
    query: Side,
    gallery: Side,
    *,
    fuse: float | None = None,
    projection: Projection | None = None,
) -> Retrieval:
    """Rank the gallery of ``task`` for each query by the similarity of what the two sides say, and score the ranking.

    ``fuse`` is the weight W of the inverted similarity in (1 - W) native + W inverted; ``projection`` takes the place of native
    features. Raises :class:`UserError` for sides that do not fit the task, pseudo-tokens that are not there, and a ``fuse`` or
    ``projection`` that the sides do not allow.
    """
    started = time.perf_counter()
    rows = similar_rows(features, task, query, gallery, fuse=fuse, projection=projection)
    ranks = _ranks(features, task, rows)
    score = retrieval_scores if ONLY in task.protocols else revisited_scores
    by_protocol = {protocol: score(found) for protocol, found in ranks.items()}
    return Retrieval(by_protocol, len(rows.query), len(rows.gallery), time.perf_counter() - started)


def _ranks(features: Features, task: RetrievalTask, rows: SidesRows) -> dict[str, Ranks]:
    """Every process ranks for its share of the queries; all of them get all ranks."""
    runtime, n = features.runtime, len(rows.query)
    share = range(n * runtime.rank // runtime.world, n * (runtime.rank + 1) // runtime.world)
    query, gallery = torch.from_numpy(rows.query), torch.from_numpy(rows.gallery)
    mine = rank_positives(query, gallery, task.protocols, runtime.device, progress=_shows(features), queries=share)
    every: list[dict[str, Ranks]] = runtime.gather_objects([mine])
    return {protocol: Ranks.joined([part[protocol] for part in every]) for protocol in task.protocols}


def similar_rows(
    features: Features, task: RetrievalTask, query: Side, gallery: Side, *, fuse: float | None = None, projection: Projection | None = None
) -> SidesRows:
    """The two sides as rows whose dot products are the similarities that ``evaluate_sides`` ranks by."""
    sides: dict[Role, Side] = {"query": query, "gallery": gallery}
    for role, side in sides.items():
        check_items(side, task, role)
    check_asked(query, gallery, fuse, projection)
    if projection is not None:
        return SidesRows(*(projected_features(features, task, role, projection) for role in sides))
    rows = SidesRows(*(side_features(features, side, task, role) for role, side in sides.items()))
    if fuse is None:
        return rows
    native = SidesRows(*(features.native(collection_of(task, role), task.name, task.split) for role in sides))
    return fused(native, rows, fuse)


def check_asked(query: Side, gallery: Side, fuse: float | None, projection: Projection | None) -> None:
    """Refuse a fusion without an inversion, and a projection with one."""
    inverted = query.inverted or gallery.inverted
    if fuse is not None and not inverted:
        raise UserError(f"--fuse mixes native and inverted similarities; make the query or the gallery one of {', '.join(INVERTED)}.")
    if fuse is not None and not 0 <= fuse <= 1:
        raise UserError(f"--fuse is the weight of the inverted similarity, between 0 and 1, not {fuse:g}.")
    if projection is not None and inverted:
        raise UserError(f"--project {projection.name} takes the place of an inversion; the query and the gallery must be image or text.")


def fused(native: SidesRows, inverted: SidesRows, weight: float) -> SidesRows:
    """Rows whose dot products are (1 - W) native + W inverted, exactly.

    Where one side is the same in both, the other one is a mixture, q = (1 - W) q_native + W q_inverted. Where both differ, rows
    of twice the width are laid side by side, scaled by the roots of the weights.
    """
    if inverted.gallery is native.gallery:
        return SidesRows((1 - weight) * native.query + weight * inverted.query, native.gallery)
    if inverted.query is native.query:
        return SidesRows(native.query, (1 - weight) * native.gallery + weight * inverted.gallery)
    a, b = np.sqrt(1 - weight, dtype=np.float32), np.sqrt(weight, dtype=np.float32)
    return SidesRows(*(np.hstack((a * of_native, b * of_inverted)) for of_native, of_inverted in zip(native, inverted, strict=True)))


def _shows(features: Features) -> bool:
    return features.load.progress and features.runtime.is_main
