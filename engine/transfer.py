"""Transferability scores of several encoders on one data set: embeddings found or made, measures taken, rows and costs kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import ensure_folder
from common.provenance import now, versions
from datasets.registry import task_slug
from datasets.task import Task
from engine.embed import LoadOptions, embed_classes, embed_task
from engine.embeddings import Embeddings, embeddings_path, load_embeddings, read_metadata, save_embeddings
from engine.runtime import Runtime
from engine.scores import sample_of, spread
from metrics.metric import Metric
from metrics.sample import Sample
from metrics.statistics import MetricError
from metrics.table import BY_ANY_NAME
from metrics.uncertainty import uncertainties
from models.selection import Selection, select_encoder

COLUMNS = (
    *("train_data", "model", "metric", "score", "stderr", "low", "high", "interval", "variant"),
    *("embedding_seconds", "calculation_seconds", "n_images", "n_classes", "split", "error"),
)


@dataclass(frozen=True)
class TransferRequest:
    """What is measured and how. ``text_features`` are further label embeddings [C, d], for EMMS."""

    task: Task
    metrics: tuple[str, ...]
    embeddings_dir: Path
    load: LoadOptions
    as_released: bool = False
    bootstrap: int = 0
    seed: int = 0
    text_features: tuple[NDArray[np.floating[Any]], ...] = ()


def select_model(name: str) -> Selection:
    """The encoder called ``name``; a path to a checkpoint is one that was fine-tuned."""
    if Path(name).suffix in (".safetensors", ".pt", ".pth"):
        return select_encoder(None, Path(name), {})
    return select_encoder(name, None, {})


def embeddings_for(runtime: Runtime, selection: Selection, request: TransferRequest) -> tuple[Embeddings, bool]:
    """The embeddings of the task by one encoder, and whether they were found.

    A saved file serves when images, split, prompts and weights are the same; otherwise the embeddings are made and saved, beside a
    file of that name that is of something else.
    """
    folder = ensure_folder(request.embeddings_dir / selection.label)
    stem = f"{task_slug(request.task.name)}_{request.task.split}"
    usual = embeddings_path(folder / stem, "safetensors")
    exact = embeddings_path(folder / f"{stem}_{request.task.fingerprint[:8]}", "safetensors")
    for path in (usual, exact):
        if path.exists() and _serves(path, selection, request.task):
            return load_embeddings(path), True
    embeddings, skipped = embed_task(runtime, selection, request.task, request.load)
    if runtime.is_main:
        path = exact if usual.exists() else usual
        skipped.write(path)
        save_embeddings(path, embeddings)
    return embeddings, False


def _serves(path: Path, selection: Selection, task: Task) -> bool:
    kept = read_metadata(path)
    asked = {
        "checkpoint_sha256": selection.sha256,
        "fingerprint": task.fingerprint,
        "split": task.split,
        "templates": json.dumps(list(task.templates), ensure_ascii=False),
    }
    return all(kept.get(key) == value for key, value in asked.items())


def scores(sample: Sample, request: TransferRequest) -> list[dict[str, Any]]:
    """One row per measure; one that is undefined here says why in ``error``, and the others go on."""
    rows = [_score(sample, BY_ANY_NAME[name], name, request) for name in request.metrics]
    defined = [row for row in rows if not row["error"]]
    metrics = [BY_ANY_NAME[row["metric"]] for row in defined]
    found = uncertainties(metrics, sample, request.bootstrap, request.seed, request.as_released)
    for row, of in zip(defined, found, strict=True):
        row.update(spread(of, request.bootstrap))
    return rows


def _score(sample: Sample, metric: Metric, name: str, request: TransferRequest) -> dict[str, Any]:
    started = time.perf_counter()
    row: dict[str, Any] = {"metric": name, "variant": metric.variant(request.as_released), "error": ""}
    try:
        row["score"] = metric.score(sample, request.as_released)
    except MetricError as error:
        row["error"] = str(error)
    return {**row, "calculation_seconds": round(time.perf_counter() - started, 6)}


def rows_of(runtime: Runtime, model: str, request: TransferRequest) -> list[dict[str, Any]]:
    """All rows of one model. A model that cannot be loaded or embedded is one row that says so."""
    try:
        selection = select_model(model)
        embeddings, found = embeddings_for(runtime, selection, request)
    except UserError as error:
        return [_row(model, request, {"metric": name, "error": str(error)}) for name in request.metrics]
    seconds = float(embeddings.metadata["embedding_seconds"]) + float(embeddings.metadata["text_seconds"])
    if found:
        runtime.say(f"\nfound the embeddings of {request.task.name} by {model}")
    common = {
        "embedding_seconds": round(seconds, 3),
        "n_images": len(embeddings.labels),
        "n_classes": len(embeddings.text_embeddings),
        "checkpoint_sha256": selection.sha256,
        "precision": embeddings.metadata["precision"],
    }
    return [_row(model, request, common | row) for row in scores(sample_of(embeddings, request.seed, request.text_features), request)]


def _row(model: str, request: TransferRequest, values: dict[str, Any]) -> dict[str, Any]:
    known = {"train_data": request.task.name, "model": model, "split": request.task.split, **values}
    provenance = {
        "checkpoint_sha256": known.pop("checkpoint_sha256", ""),
        "fingerprint": request.task.fingerprint,
        "templates": json.dumps(request.task.templates),
        "precision": known.pop("precision", ""),
        "seed": request.seed,
        "bootstrap": known.pop("bootstrap", ""),
        "created": now(),
        "versions": json.dumps(versions()),
    }
    return {column: known.get(column, "") for column in COLUMNS} | provenance


def text_features(runtime: Runtime, task: Task, encoders: Sequence[str], files: Sequence[Path]) -> tuple[NDArray[np.floating[Any]], ...]:
    """Further label embeddings [C, d] of the task's classes: by other encoders' text towers, and from files.

    A file is a .npy array, or an embeddings file of the same data set, of which the text embeddings are taken.
    """
    made = [embed_classes(runtime, select_model(name).encoder, task) for name in encoders]
    read = [_read_features(path) for path in files]
    for features, origin in zip([*made, *read], [*encoders, *files], strict=True):
        if features.ndim != 2 or len(features) != len(task.classnames):
            raise UserError(f"'{origin}' has label features of shape {features.shape}; {task.name} has {len(task.classnames)} classes.")
    return (*made, *read)


def _read_features(path: Path) -> NDArray[np.floating[Any]]:
    if path.suffix != ".npy":
        return load_embeddings(path).text_embeddings
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is not a readable .npy array: {error}.") from error
    if not np.issubdtype(features.dtype, np.floating) or not np.isfinite(features).all():
        raise UserError(f"'{path}' does not hold finite floating-point numbers.")
    return features
