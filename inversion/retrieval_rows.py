"""Evaluations of retrieval as rows of a table: which ones the command line asks for, and what a row says of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.errors import UserError
from common.provenance import now, peak_memory_mib, versions
from datasets.retrieval.task import RetrievalTask
from datasets.task import as_templates
from inversion.baselines import Projection
from inversion.pseudo_tokens import PseudoTokens
from inversion.retrieve import Retrieval, evaluate_sides
from inversion.sides import Features, Role, Side

FINAL, ALL = "final", "all"  # words for steps
SHOWN = {  # the scores that are printed, in short
    **{"mAP": "mAP", "mAP_at_R": "mAP@R", "precision_at_R": "P@R"},
    **{f"recall_at_{k}": f"R@{k}" for k in (1, 5, 10)},
    **{f"mP_at_{k}": f"mP@{k}" for k in (1, 5, 10)},
}
WIDTH = 40  # of what an evaluation is called in the printed table


@dataclass(frozen=True)
class Asked:
    """One evaluation: what the sides are, and how they are fused or projected."""

    query: Side
    gallery: Side
    fuse: float | None = None
    projection: Projection | None = None

    @property
    def sides(self) -> dict[Role, Side]:
        """By role."""
        return {"query": self.query, "gallery": self.gallery}

    @property
    def label(self) -> str:
        """E.g. ``oti exp@150 -> image, fused 0.5``, or ``image -> image, pca``."""
        sides = [f"{side.type} {side.exp_name}@{side.step}" if side.inverted else side.type for side in self.sides.values()]
        fused = [] if self.fuse is None else [f"fused {self.fuse:g}"]
        projected = [] if self.projection is None else [self.projection.label]
        return ", ".join([" -> ".join(sides), *fused, *projected])

    def evaluate(self, features: Features, task: RetrievalTask) -> Retrieval:
        """See :func:`~inversion.retrieve.evaluate_sides`."""
        return evaluate_sides(features, task, self.query, self.gallery, fuse=self.fuse, projection=self.projection)


def at_steps(features: Features, task: RetrievalTask, asked: Asked, steps: Sequence[str]) -> Iterator[Asked]:
    """The evaluation after each of ``steps``, numbers or :data:`FINAL` or :data:`ALL`; as it is where nothing was inverted.

    Where both sides are inverted, both are taken after the same number of steps; the final ones may differ.
    """
    pseudo = {role: features.pseudo_tokens(side, task, role) for role, side in asked.sides.items() if side.inverted}
    if not pseudo:
        if list(steps) != [FINAL]:
            raise UserError("--steps are those of an inversion; make the query or the gallery oti or ovi, or leave it out.")
        yield asked
        return
    common = [step for step in next(iter(pseudo.values())).steps if all(step in of.steps for of in pseudo.values())]
    for step in [str(each) for each in common] if ALL in steps else steps:
        chosen = {role: replace(asked.sides[role], step=_number(step, of)) for role, of in pseudo.items()}
        yield replace(asked, query=chosen.get("query", asked.query), gallery=chosen.get("gallery", asked.gallery))


def _number(step: str, pseudo: PseudoTokens) -> int:
    if step == FINAL:
        return pseudo.steps[-1]
    if not step.isdecimal():
        raise UserError(f"--steps takes numbers of steps, '{FINAL}' or '{ALL}', not '{step}'.")
    return int(step)


def check_template(pseudo: PseudoTokens, template: str | None) -> None:
    """A :class:`UserError` when pseudo-tokens were made with another sentence around them than the user says."""
    made = pseudo.hyperparameters.get("template")
    if template is not None and made and as_templates([made]) != as_templates([template]):
        raise UserError(f"These pseudo-tokens were made with the template '{made}', not '{template}'; leave --oti-template-sentence out.")


def heading(found: Retrieval) -> str:
    """The line above :func:`lines`."""
    names = [name for name in SHOWN if hasattr(next(iter(found.by_protocol.values())), name)]
    return f"{'evaluation':<{WIDTH}} " + " ".join(f"{SHOWN[name]:>6}" for name in names) + f" {'seconds':>8}"


def lines(asked: Asked, found: Retrieval) -> Iterator[str]:
    """The scores as percentages, a line for each protocol; queries that could not be scored are said in one more."""
    for protocol, scores in found.by_protocol.items():
        numbers = " ".join(f"{100 * getattr(scores, name):>6.2f}" for name in SHOWN if hasattr(scores, name))
        label = asked.label + (f", {protocol}" if protocol else "")
        yield f"{label:<{WIDTH}} {numbers} {found.seconds:>8.1f}"
        if scores.n_without_positives:
            yield f"  nothing is relevant to {scores.n_without_positives} of the {found.n_queries} queries; they are left out of every mean"


def row_of(features: Features, task: RetrievalTask, asked: Asked, found: Retrieval, gallery_split: str) -> dict[str, Any]:
    """What the table says of one evaluation; scores as percentages. What does not apply is empty."""
    selection, projection = features.selection, asked.projection
    steps = {role: "" if side.step is None else side.step for role, side in asked.sides.items()}
    return {
        "model": selection.model,
        "tuning": selection.tuning,
        "checkpoint": selection.checkpoint,
        "dataset": task.name,
        "split": task.split,
        "gallery_split": gallery_split,
        "query": asked.query.type,
        "gallery": asked.gallery.type,
        "query_exp_name": asked.query.exp_name if asked.query.inverted else "",
        "gallery_exp_name": asked.gallery.exp_name if asked.gallery.inverted else "",
        "query_step": steps["query"],
        "gallery_step": steps["gallery"],
        "fuse": "" if asked.fuse is None else asked.fuse,
        "project": "" if projection is None else projection.label,
        "n_queries": found.n_queries,
        "n_gallery": found.n_gallery,
        "n_without_positives": max(found.without_positives.values()),
        **{name: round(100 * score, 4) for name, score in found.scores.items()},
        "seconds": round(found.seconds, 3),
        "precision": features.runtime.precision,
        "fingerprint": task.fingerprint,
        "checkpoint_sha256": selection.sha256,
        "created": now(),
        "versions": json.dumps(versions()),
    }


def details_of(features: Features, task: RetrievalTask, asked: Asked, found: Retrieval) -> dict[str, Any]:
    """What the JSON of a row says besides the row: how the pseudo-tokens were made, and on what it was computed."""
    inverted = {role: features.pseudo_tokens(side, task, role).hyperparameters for role, side in asked.sides.items() if side.inverted}
    return {
        "without_positives": found.without_positives,
        "inversion": inverted,
        "decode": features.load.decode,
        "device": str(features.runtime.device),
        "processes": features.runtime.world,
        "peak_memory_mib": peak_memory_mib(),
    }
