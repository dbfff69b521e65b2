"""Transferability scores of several encoders on one data set: embeddings found or made, measures taken, rows and costs kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import CannotWrite, UserError
from common.files import ensure_folder
from common.provenance import now, versions
from datasets.registry import task_slug
from datasets.task import Task
from engine.embed import LoadOptions, embed_task
from engine.embedding_parts import is_there
from engine.embeddings import Embeddings, embeddings_path, load_embeddings, read_metadata, save_embeddings
from engine.loading import SkippedImages
from engine.runtime import Runtime
from engine.scores import sample_of, spread
from metrics.metric import Metric
from metrics.ncti import METRIC as NCTI
from metrics.ncti import NctiParts, compare_ncti, ncti_parts_of
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


class EmbeddingsFile(NamedTuple):
    """Where the embeddings by one model are, and whether they were there already; or why there are none."""

    model: str
    path: Path = Path()
    found: bool = False
    error: str = ""


class Measured(NamedTuple):
    """The rows of one model, and the parts of its NCTI where that was asked for and is defined."""

    model: str
    rows: list[dict[str, Any]]
    ncti: NctiParts | None = None


def select_model(name: str) -> Selection:
    """The encoder called ``name``; a path to a checkpoint is one that was fine-tuned."""
    if Path(name).suffix in (".safetensors", ".pt", ".pth"):
        return select_encoder(None, Path(name), {})
    return select_encoder(name, None, {})


def embeddings_files(runtime: Runtime, models: Sequence[str], request: TransferRequest) -> Iterator[EmbeddingsFile]:
    """The embeddings files of several models. One process makes each when it is asked for; several make all of them first.

    So the others can end, and need not wait for the one that measures, which may take longer than waiting is allowed to.
    """
    files = (embeddings_file(runtime, model, request) for model in models)
    return files if runtime.world == 1 else iter(list(files))


def embeddings_file(runtime: Runtime, model: str, request: TransferRequest) -> EmbeddingsFile:
    """The file of one model, found or made; a model that cannot be loaded, or cannot embed the task, says so in ``error``.

    Raises :class:`CannotWrite` when there is no room for it, which tells nothing of the model.
    """
    try:
        return _found_or_made(runtime, model, request)
    except CannotWrite:
        raise
    except UserError as error:
        return EmbeddingsFile(model, error=str(error))
    except torch.OutOfMemoryError:
        if runtime.world > 1:
            raise  # the other processes are waiting for this one in the middle of their work
        return EmbeddingsFile(model, error=f"'{model}' and {request.load.batch_size} images do not fit into memory; make --bs smaller.")


def _found_or_made(runtime: Runtime, model: str, request: TransferRequest) -> EmbeddingsFile:
    """A saved file serves when images, split, prompts and weights are the same; else one is made, beside that of something else."""
    selection = select_model(model)
    asked = {**_identity(selection, request.task), "decode": request.load.decode}
    stem = f"{task_slug(request.task.name)}_{request.task.split}"
    folder = ensure_folder(request.embeddings_dir / selection.label)
    usual = embeddings_path(folder / stem, "safetensors")
    exact = embeddings_path(folder / f"{stem}_{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]}", "safetensors")
    serving = [path for path in (usual, exact) if is_there(path) and _serves(path, asked, request.load.max_skipped)]
    found, path = runtime.gather_objects([(serving[0], None) if serving else (None, exact if is_there(usual) else usual)])[0]
    if found:
        return EmbeddingsFile(model, found, found=True)
    embeddings, skipped = _embed(runtime, selection, request)
    if runtime.is_main:
        skipped.write(path)
        save_embeddings(path, embeddings)
    return EmbeddingsFile(model, path)


def _identity(selection: Selection, task: Task) -> dict[str, str]:
    """What the metadata of embeddings of this task by this encoder says."""
    return {
        "checkpoint_sha256": selection.sha256,
        "fingerprint": task.fingerprint,
        "split": task.split,
        "classnames": json.dumps(list(task.classnames), ensure_ascii=False),
        "templates": json.dumps(list(task.templates), ensure_ascii=False),
    }


def _serves(path: Path, asked: dict[str, str], max_skipped: int) -> bool:
    """Whether the file is of what is asked, with no more images left out than may be. One that is damaged is not."""
    try:
        kept = read_metadata(path)
    except UserError:
        return False
    return all(kept.get(key) == value for key, value in asked.items()) and int(kept.get("n_skipped") or 0) <= max_skipped


def _embed(runtime: Runtime, selection: Selection, request: TransferRequest) -> tuple[Embeddings, SkippedImages]:
    """:func:`embed_task`; several processes go through all images before they fail, so that all of them fail and go on together."""
    allowed = request.load.max_skipped if runtime.world == 1 else len(request.task)
    embeddings, skipped = embed_task(runtime, selection, request.task, replace(request.load, max_skipped=allowed))
    skipped.max_skipped = request.load.max_skipped
    skipped.check()
    return embeddings, skipped


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


def measure(file: EmbeddingsFile, request: TransferRequest) -> Measured:
    """All rows of one model. One without embeddings, or whose file is damaged, says so in each of them."""
    try:
        if file.error:
            raise UserError(file.error)
        embeddings = load_embeddings(file.path)
    except UserError as error:
        return Measured(file.model, [_row(file.model, request, {"metric": name, "error": str(error)}) for name in request.metrics])
    metadata = embeddings.metadata
    common = {
        "embedding_seconds": round(sum(float(metadata.get(key, "nan")) for key in ("embedding_seconds", "text_seconds")), 3),
        "n_images": len(embeddings.labels),
        "n_classes": len(embeddings.text_embeddings),
        "checkpoint_sha256": metadata["checkpoint_sha256"],
        "precision": metadata["precision"],
    }
    sample = sample_of(embeddings, request.seed, request.text_features)
    rows = [_row(file.model, request, common | row) for row in scores(sample, request)]
    comparable = any(row["metric"] == NCTI.name and not row["error"] for row in rows)
    return Measured(file.model, rows, ncti_parts_of(sample) if comparable else None)


def ncti_comparison(measured: Sequence[Measured]) -> str:
    """The paper's NCTI of the models that have it, by decreasing score, as a text; '' with fewer than two.

    It scales the parts by their extremes over the models at hand, so it is of these models and no row of the table.
    """
    known = [(one.model, one.ncti) for one in measured if one.ncti is not None]
    if len(known) < 2:
        return ""
    compared = compare_ncti([parts for _, parts in known]).tolist()
    ranked = sorted(zip(compared, (model for model, _ in known), strict=True), key=lambda pair: -pair[0])
    return "\n".join(
        [
            "NCTI as its paper compares models, each part scaled to [0, 1] over those below: these numbers depend on which models",
            "are listed, and are not written to the table.",
            *(f"  {score:>12.6g}  {model}" for score, model in ranked),
        ]
    )


def _row(model: str, request: TransferRequest, values: dict[str, Any]) -> dict[str, Any]:
    known = {"train_data": request.task.name, "model": model, "split": request.task.split, **values}
    provenance = {
        "checkpoint_sha256": known.pop("checkpoint_sha256", ""),
        "fingerprint": request.task.fingerprint,
        "templates": json.dumps(list(request.task.templates), ensure_ascii=False),
        "precision": known.pop("precision", ""),
        "seed": request.seed,
        "bootstrap": known.pop("bootstrap", ""),
        "created": now(),
        "versions": json.dumps(versions()),
    }
    return {column: known.get(column, "") for column in COLUMNS} | provenance
