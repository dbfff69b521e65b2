"""Zero-shot classification with inverted features, the third experiment of Cross the Gap (ICLR 2025).

====== ======= ================= =====================================================
images classes cosines are       published accuracy, CLIP ViT-B/32, mean of 11 sets
====== ======= ================= =====================================================
image  text    image to text     61.9 %
oti    text    text to text      56.4 %
image  ovi     image to image
====== ======= ================= =====================================================

Encoders are trained for the first. An inversion makes the comparison intra-modal: what it mends in retrieval it spoils here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.retrieval.collection import Collection
from datasets.task import Task
from engine.embed import LoadOptions, embed_classes, embed_images
from engine.evaluate import Evaluation, check_answered, evaluation_of
from engine.loading import SkippedImages
from engine.runtime import Runtime
from inversion.items import CLASSES, class_prompts
from inversion.pseudo_tokens import read_hyperparameters
from inversion.sides import Side, check_encoder, folder_of, load_inversion, of_step
from models.selection import Selection

IMAGES = "query"  # the side of a data set whose images are classified; CLASSES is that of its class names
ROWS = 65536  # images that are compared with all classes at once


def evaluate_inverted(runtime: Runtime, selection: Selection, task: Task, load: LoadOptions, images: Side, classes: Side) -> Evaluation:
    """Give every image of ``task`` the class of greatest cosine, and count.

    ``images`` is a side of the type ``image`` or ``oti``, in which case no image is decoded; ``classes`` of the type ``text`` (the
    task's own prompts) or ``ovi`` (of its class names). Raises :class:`UserError` where an inversion is missing, is of other
    items or of another encoder, and for an encoder with a probe, which knows classes without their names.
    """
    if selection.encoder.probe is not None:
        raise UserError("A probe classifies images without the features of classes, so there is nothing to invert; use another checkpoint.")
    started = time.perf_counter()
    class_rows = _classes(runtime, selection, task, classes)
    rows, indices, skipped = _images(runtime, selection, task, load, images)
    predicted = np.concatenate([_nearest(rows[start : start + ROWS], class_rows, task) for start in range(0, len(rows), ROWS)])
    return evaluation_of(predicted, indices, task, time.perf_counter() - started, skipped)


def _nearest(rows: NDArray[np.float32], class_rows: NDArray[np.float32], task: Task) -> NDArray[np.int64]:
    cosines = rows @ class_rows.T
    check_answered(int((~np.isfinite(cosines).all(axis=1)).sum()), task)
    return cosines.argmax(axis=1)


def _classes(runtime: Runtime, selection: Selection, task: Task, side: Side) -> NDArray[np.float32]:
    """Unit features float32 [C, D] of the classes."""
    if side.type == "text":
        return embed_classes(runtime, selection.encoder, task)
    pseudo = load_inversion(folder_of(side, selection, task.name, task.split, CLASSES), selection)
    prompts = class_prompts(task.classnames, pseudo.hyperparameters["template"])
    row_of = dict(zip(prompts.ids, pseudo.rows_for(prompts).tolist(), strict=True))  # a name that two classes share was inverted once
    return of_step(pseudo, side.step)[[row_of[name] for name in task.classnames]]


def _images(
    runtime: Runtime, selection: Selection, task: Task, load: LoadOptions, side: Side
) -> tuple[NDArray[np.float32], NDArray[np.int64], SkippedImages]:
    """Unit features float32 [n, D] of the images at the indices [n], and what could not be read."""
    if side.type == "image":
        embedded = embed_images(runtime, selection.encoder, task, load)
        return embedded.embeddings, embedded.indices, embedded.skipped
    pseudo = load_inversion(folder_of(side, selection, task.name, task.split, IMAGES), selection)
    return of_step(pseudo, side.step)[pseudo.rows_for(Collection.of_task(task))], np.arange(len(task)), SkippedImages()


def check_inversions(selection: Selection, tasks: Iterable[Task], images: Side, classes: Side) -> None:
    """A :class:`UserError` where an inversion of any of ``tasks`` is missing, or is of another encoder; reads no pseudo-tokens."""
    for task in tasks:
        for folder in _folders(selection, task, images, classes).values():
            check_encoder(folder, read_hyperparameters(folder), selection)


def columns_of(images: Side, classes: Side) -> dict[str, Any]:
    """What a row of results says of the features."""
    step = "" if images.step is None else images.step
    return {"image_features": images.type, "class_features": classes.type, "exp_name": images.exp_name, "step": step}


def inversions_of(selection: Selection, task: Task, images: Side, classes: Side) -> dict[str, dict[str, Any]]:
    """How the inverted ones were made: their hyper-parameters."""
    return {name: read_hyperparameters(folder) for name, folder in _folders(selection, task, images, classes).items()}


def _folders(selection: Selection, task: Task, images: Side, classes: Side) -> dict[str, Path]:
    """Where the inverted ones lie."""
    parts = {"images": (images, IMAGES), "classes": (classes, CLASSES)}
    return {name: folder_of(side, selection, task.name, task.split, part) for name, (side, part) in parts.items() if side.inverted}
