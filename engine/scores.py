"""The table of scores that several commands add to: what a row says of where its score comes from, and which rows are there already."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.files import append_chosen
from engine.embeddings import Embeddings
from metrics.metric import AS_DEFINED
from metrics.sample import Sample
from metrics.table import BY_ANY_NAME
from metrics.uncertainty import BOOTSTRAP, NONE, Uncertainty, uncertainties

IDENTITY = (
    *("data", "model", "finetuning", "split", "proportion", "measure", "variant"),
    *("n_images", "n_classes", "seed", "fingerprint", "checkpoint_sha256", "templates", "precision"),
)  # what makes two rows the same measurement, if their scores agree too; the path of the file, seconds and NumPy's version do not
INTERVAL = ("interval", "bootstrap")  # a row with another kind of interval says more than the one that is there
DEFAULTS = {"variant": AS_DEFINED, "interval": NONE, "bootstrap": "0"}  # of rows that were written before the column existed
SAME_SCORE = 1e-12  # another processor or BLAS rounds differently in the last digits


def provenance(
    facts: Mapping[str, str], *, n_images: int, n_classes: int, proportion: float = 1.0, seed: int = 0, file: Path | None = None
) -> dict[str, Any]:
    """What a row says about where its score comes from, in the order of the columns; ``facts`` is the metadata of embeddings."""
    return {
        **{"data": facts["dataset"], "model": facts["model"], "finetuning": facts["tuning"], "split": facts["split"]},
        **{"proportion": proportion, "measure": "", "score": "", "stderr": "", "low": "", "high": "", "interval": NONE, "bootstrap": 0},
        **{"variant": AS_DEFINED, "n_images": n_images, "n_classes": n_classes, "seed": seed, "fingerprint": facts["fingerprint"]},
        **{"checkpoint_sha256": facts["checkpoint_sha256"], "templates": facts["templates"], "precision": facts["precision"]},
        **{"file": str(file or ""), "seconds": 0.0, "numpy": np.__version__},
    }


def sample_of(embeddings: Embeddings, seed: int = 0, text_features: tuple[NDArray[Any], ...] = ()) -> Sample:
    """What the measures are computed from; the logit scale is the encoder's where the file has it, else CLIP's 100."""
    return Sample(
        embeddings.image_embeddings,
        embeddings.text_embeddings,
        embeddings.labels,
        logit_scale=float(embeddings.metadata.get("logit_scale") or 100.0),
        text_features=text_features,
        seed=seed,
    )


def score(sample: Sample, names: Sequence[str], *, as_released: bool = False, bootstrap: int = 0) -> list[dict[str, Any]]:
    """Of each measure its score, its seconds (sums that several need are counted in the first of them), and its uncertainty."""
    rows = []
    for name in names:
        metric, started = BY_ANY_NAME[name], time.perf_counter()
        value = metric.score(sample, as_released)
        seconds = round(time.perf_counter() - started, 6)
        rows.append({"measure": name, "variant": metric.variant(as_released), "score": value, "seconds": seconds})
    found = uncertainties([BY_ANY_NAME[name] for name in names], sample, bootstrap, sample.seed, as_released)
    return [row | spread(of, bootstrap) for row, of in zip(rows, found, strict=True)]


def spread(of: Uncertainty, bootstrap: int) -> dict[str, Any]:
    """The columns of an uncertainty; ``bootstrap`` is the number of resamples that was asked for."""
    numbers = {"stderr": of.stderr, "low": of.low, "high": of.high}
    written = {name: "" if number is None else number for name, number in numbers.items()}
    return {**written, "interval": of.method, "bootstrap": bootstrap if of.method == BOOTSTRAP else 0}


def add_scores(table: Path, rows: Sequence[dict[str, Any]]) -> int:
    """Add the rows that are not yet in the table; returns how many those are. No other process can add the same meanwhile."""
    return append_chosen(table, lambda known: without_known(rows, known))


def without_known(rows: Sequence[dict[str, Any]], table: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows that are not yet in the table, each once."""
    known: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for old in table:
        known[identity(old)].append(old)
    new = []
    for row in rows:
        of_same = known[identity(row)]
        if not any(says_no_more(row, old) for old in of_same):
            new.append(row)
            of_same.append(row)
    return new


def says_no_more(row: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether the score is the known one, and the interval too, or there is none."""
    interval = _cells(row, INTERVAL)
    return same_score(row["score"], known.get("score", "")) and (interval[0] == NONE or interval == _cells(known, INTERVAL))


def same_score(score: float, known: str | float) -> bool:
    """Whether a score of the table is this one."""
    try:
        return abs(score - float(known)) <= SAME_SCORE
    except ValueError:
        return False


def identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What two rows of the same measurement share; files that do not know their samples are told apart by their path."""
    return _cells(row, IDENTITY if row.get("fingerprint") else (*IDENTITY, "file"))


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The cells as they are written; 0 is a value, no cell and an empty one are not."""
    return tuple(str(DEFAULTS.get(column, "") if row.get(column) in (None, "") else row[column]) for column in columns)
