"""The figures that retrieval.py draws: histograms of the cosines of the queries, and scores over the steps of inversions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.files import slug
from datasets.registry import task_slug
from datasets.retrieval.collection import Collection
from datasets.retrieval.task import RetrievalTask
from datasets.task import fill
from inversion.figures import Dynamics, draw_dynamics, draw_similarities
from inversion.misalignment import similarities
from inversion.retrieval_rows import Asked
from inversion.retrieve import Retrieval, evaluate_sides
from inversion.sides import Features, Role, Side, side_features

CLASS_PROMPT = "a photo of a {c}"  # what images are compared with


def draw_evaluations(features: Features, task: RetrievalTask, done: Sequence[tuple[Asked, Retrieval]], folder: Path) -> Iterator[Path]:
    """Draw into ``folder``: histograms for each kind of query that was evaluated, and curves where steps or experiments vary.

    Yields the paths of what was drawn. All processes of a run must call this, since all compute features; the main one draws.
    """
    for query in dict.fromkeys(asked.query for asked, _ in done):
        yield from draw_histograms(features, task, query, folder)
    compared = [(asked, found) for asked, found in done if asked.fuse is None and (asked.query.inverted or asked.gallery.inverted)]
    if len(compared) > 1:
        yield from _draw_curves(features, task, compared, folder)


def draw_histograms(features: Features, task: RetrievalTask, query: Side, folder: Path) -> Iterator[Path]:
    """Cosines of the queries among themselves, with the texts of their classes, and of their inversions with both."""
    native = features.native(task.query, task.name, task.split)
    labels, texts = task.query.labels, class_features(features, task.query)
    inverted = side_features(features, query, task, "query") if query.inverted else None
    if not features.runtime.is_main:
        return
    if inverted is not None and not (learnt := inverted.any(axis=1)).all():  # without empty texts
        native, labels, inverted = native[learnt], None if labels is None else labels[learnt], inverted[learnt]
    device = "cpu" if features.runtime.device.type == "mps" else features.runtime.device  # which has no float64
    of = similarities(native, labels, texts, inverted, modality=task.query.modality, device=device)  # type: ignore[arg-type]
    name = f"{features.selection.label}_{task_slug(task.name)}_{task.split}_{query.type}"
    inversion = f"_{slug(str(query.exp_name))}_{query.step}" if query.inverted else ""
    yield draw_similarities(of, folder, title=task_slug(task.name), name=f"similarities_{name}{inversion}").png


def class_features(features: Features, collection: Collection) -> NDArray[np.float32] | None:
    """A text feature [C, D] for each class of images; None for texts, and where classes have no names."""
    if collection.modality == "text" or collection.labels is None or not collection.classnames:
        return None
    names = collection.classnames
    texts = Collection.of_texts([fill(CLASS_PROMPT, name) for name in names], [str(number) for number in range(len(names))])
    return features.native(texts, "classes", "names")


def _draw_curves(features: Features, task: RetrievalTask, compared: Sequence[tuple[Asked, Retrieval]], folder: Path) -> Iterator[Path]:
    """Loss and score over steps, an experiment a line; native features of both sides are the line to compare with."""
    first, measure = compared[0][0], next(iter(compared[0][1].scores))
    native = evaluate_sides(features, task, Side(first.query.items), Side(first.gallery.items))
    if not features.runtime.is_main:
        return
    rows, curves = [], {}
    for asked, found in compared:
        role: Role = "query" if asked.query.inverted else "gallery"
        side = asked.sides[role]
        pseudo = features.pseudo_tokens(side, task, role)
        step = pseudo.steps[-1] if side.step is None else side.step
        loss = float(pseudo.losses[:, pseudo.steps.index(step)].mean())
        assert side.exp_name is not None
        curves[side.exp_name] = pseudo.curve
        rows.append(Dynamics(side.exp_name, int(pseudo.hyperparameters["num_pseudo_tokens"]), step, loss, found.scores[measure]))
    references = {f"{first.query.items} to {first.gallery.items}": native.scores[measure]}
    name = f"dynamics_{features.selection.label}_{task_slug(task.name)}_{task.split}_{first.query.type}_{first.gallery.type}"
    yield draw_dynamics(rows, curves, references, folder, measure.replace("_", " "), name).png
