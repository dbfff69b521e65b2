"""Label embeddings for EMMS beside the encoder's own: by other encoders' text towers, and from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.task import Task
from engine.embed import embed_classes
from engine.embeddings import load_embeddings
from engine.runtime import Runtime
from engine.transfer import select_model


def text_features(runtime: Runtime, task: Task, encoders: Sequence[str], files: Sequence[Path]) -> tuple[NDArray[np.floating[Any]], ...]:
    """Further label embeddings [C, d] of the task's classes: by other encoders' text towers, and from files.

    A file is a .npy array, or an embeddings file of the same classes, of which the text embeddings are taken. Files are read
    first: one that does not fit is a UserError before any encoder is loaded.
    """
    read = [_read_features(path, task) for path in files]
    return (*(embed_classes(runtime, select_model(name).encoder, task) for name in encoders), *read)


def _read_features(path: Path, task: Task) -> NDArray[np.floating[Any]]:
    features = _read_array(path) if path.suffix == ".npy" else _read_texts(path, task)
    if features.ndim != 2 or len(features) != len(task.classnames) or not features.size:
        raise UserError(f"'{path}' has label features of shape {list(features.shape)}; {task.name} has {len(task.classnames)} classes.")
    return features


def _read_texts(path: Path, task: Task) -> NDArray[np.floating[Any]]:
    """The text embeddings of a file, which must be of the same classes in the same order, where it knows them."""
    embeddings = load_embeddings(path)
    for there, here in zip(embeddings.classnames, task.classnames, strict=False):
        if there != here:
            raise UserError(f"'{path}' has the class '{there}' where {task.name} has '{here}'; its text embeddings are of other classes.")
    return embeddings.text_embeddings


def _read_array(path: Path) -> NDArray[np.floating[Any]]:
    try:
        features = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises nearly every type on damaged files
        raise UserError(f"'{path}' is not a readable .npy array: {str(error).rstrip('.')}.") from error
    if not isinstance(features, np.ndarray) or not np.issubdtype(features.dtype, np.floating) or not np.isfinite(features).all():
        raise UserError(f"'{path}' does not hold finite floating-point numbers.")
    return features
