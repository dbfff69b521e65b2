"""Few-shot draws: so many images of each class, by seed. A draw is a subset :class:`~datasets.task.Task`.

``independent``, the default
    The images of a class are ranked by SHA-256 of (seed, sample id) and the first ``shots`` are taken. So the draw of a class
    depends on its own images only: not on other classes, not on the order of the files, not on what was drawn before. The
    4-shot draw holds the 2-shot draw, and features of the largest draw serve all. Images come class by class in the
    order of the labels, each class in the order of its ranks.
``legacy``
    As Dassl's ``generate_fewshot_dataset`` draws, on which CoOp, Tip-Adapter and the papers after them rest: one stream of
    Python's ``random``, and from it ``random.sample`` for one class after another, in the order in which their labels first
    appear. Images come in the order in which they are drawn. Draws of different ``shots`` have nothing to do with one
    another, and what is drawn second depends on what was drawn first (:func:`few_shot_draws`).

A class with fewer images than shots gives all that it has. With ``repeat`` it gives as many as the others: ``legacy``
draws them with replacement, as Tip-Adapter does, ``independent`` goes through the ranks again and again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np

from common.errors import UserError, unknown_name
from datasets.task import Task

ORDERS = ("independent", "legacy")
VALIDATION_SHOTS = 4  # CoOp validates on min(shots, 4) images of each class


def few_shot(train: Task, shots: int, seed: int, *, order: str = "independent", repeat: bool = False) -> Task:
    """``shots`` images of each class of ``train``; see the module for ``order``, ``repeat`` and the order of the images.

    Raises a :class:`~common.errors.UserError` when ``shots`` is below 1 or a class has no image.
    """
    return few_shot_draws([(train, shots)], seed, order=order, repeat=repeat)[0]


def few_shot_with_validation(
    train: Task, val: Task, shots: int, seed: int, *, order: str = "independent", repeat: bool = False
) -> tuple[Task, Task]:
    """CoOp's protocol: ``shots`` images of each class to learn from, then ``min(shots, 4)`` to validate on."""
    drawn = few_shot_draws([(train, shots), (val, min(shots, VALIDATION_SHOTS))], seed, order=order, repeat=repeat)
    return drawn[0], drawn[1]


def few_shot_draws(wanted: Sequence[tuple[Task, int]], seed: int, *, order: str = "independent", repeat: bool = False) -> list[Task]:
    """A draw for each (task, shots) of ``wanted``.

    ``independent`` draws are what each would be alone. ``legacy`` draws come from one stream, in the given order. The code of
    the intra-modal overlap paper goes through all shots in one process, so its draws, where none is stored yet, are those of
    ``few_shot_draws([(train, shots) for shots in (1, 2, 4, 8, 16)], seed, order="legacy")``.
    """
    if order not in ORDERS:
        raise unknown_name("order of few-shot draws", order, ORDERS)
    stream = random.Random(seed)  # the numbers of random.seed(seed), without touching the global generator
    drawn = []
    for task, shots in wanted:
        classes = _rows_by_class(task, shots)
        rows = _sampled(classes, shots, stream, repeat) if order == "legacy" else _ranked(task, classes, shots, seed, repeat)
        drawn.append(task.subset(np.array(rows, dtype=np.int64)))
    return drawn


def _rows_by_class(task: Task, shots: int) -> dict[int, list[int]]:
    """Where the images of each label are; the labels in the order of their first appearance."""
    if shots < 1:
        raise UserError(f"The number of shots must be at least 1, not {shots}.")
    classes: dict[int, list[int]] = {}
    for row, label in enumerate(task.labels.tolist()):
        classes.setdefault(label, []).append(row)
    for label, name in enumerate(task.classnames):
        if label not in classes:
            raise UserError(f"{task.name} has no {task.split} image of the class '{name}', so no shot of it can be drawn.")
    return classes


def _sampled(classes: dict[int, list[int]], shots: int, stream: random.Random, repeat: bool) -> list[int]:
    """The ``legacy`` draw. A class whose images are not enough takes no number from the stream, unless ``repeat`` is set."""
    drawn: list[int] = []
    for rows in classes.values():
        if len(rows) >= shots:
            drawn += stream.sample(rows, shots)
        else:
            drawn += stream.choices(rows, k=shots) if repeat else rows
    return drawn


def _ranked(task: Task, classes: dict[int, list[int]], shots: int, seed: int, repeat: bool) -> list[int]:
    """The ``independent`` draw."""

    def rank(row: int) -> bytes:
        return hashlib.sha256(f"{seed} {task.samples.sample_id(row)}".encode()).digest()

    drawn: list[int] = []
    for _, rows in sorted(classes.items()):
        ranked = sorted(rows, key=rank)
        drawn += [ranked[i % len(ranked)] for i in range(shots)] if repeat else ranked[:shots]
    return drawn
