"""A task of unknown outcome: its score and its zero-shot accuracy, from the embeddings of the encoder before tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from engine.embeddings import UNTUNED, Embeddings, load_embeddings
from metrics.table import BY_ANY_NAME, METRICS, MetricError
from study.outcomes import ZERO_SHOT, Outcome, gain


@dataclass(frozen=True)
class NewTask:
    """The new task, and what speaks against reading a fit off at it (see :func:`new_task`)."""

    file: str
    name: str
    score: float
    zero_shot_accuracy: float
    warnings: tuple[str, ...] = ()


def new_task(file: Path, measure: str, outcomes: Sequence[Outcome], zero_shot: float | None = None) -> NewTask:
    """The score and the zero-shot accuracy of an embeddings file, with what speaks against using it for this fit."""
    embeddings = load_embeddings(file)
    arrays = embeddings.image_embeddings, embeddings.text_embeddings, embeddings.labels
    try:
        score = float(BY_ANY_NAME[measure](*arrays))
        accuracy = METRICS[ZERO_SHOT](*arrays) if zero_shot is None else zero_shot
    except MetricError as error:
        raise UserError(f"'{file}' cannot be measured: {error}") from error
    if not np.isfinite(score):
        raise UserError(f"{measure} of '{file}' is {score}, from which nothing can be predicted.")
    gain(accuracy, accuracy, f"'{file}'")  # tells now when it is not defined
    return NewTask(str(file), embeddings.metadata["dataset"], score, accuracy, _doubts(embeddings, measure, outcomes))


def _doubts(embeddings: Embeddings, measure: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What the file says of itself that does not go with the fit."""
    facts, first = embeddings.metadata, outcomes[0]
    splits = {of.score_splits[measure] for of in outcomes if of.score_splits.get(measure)}
    doubts = []
    if facts["model"] not in ("", first.model):
        doubts.append(f"The embeddings are of the model '{facts['model']}', the outcomes of '{first.model}'.")
    if facts["tuning"] not in ("", UNTUNED):
        doubts.append(f"The embeddings are of an encoder after '{facts['tuning']}', the fit is on scores before any tuning.")
    if facts["dataset"] in {of.task for of in outcomes}:
        doubts.append(f"{facts['dataset']} is one of the fitted tasks, so this is not a prediction of something unseen.")
    if splits and facts["split"] and splits != {facts["split"]}:
        doubts.append(f"The embeddings are of the split '{facts['split']}', the fitted scores of '{', '.join(sorted(splits))}'.")
    return tuple(doubts)
