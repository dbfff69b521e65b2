"""Known outcomes that are real, and scores and embeddings that are SYNTHETIC: made up so that a test knows what must come out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from engine.embeddings import Embeddings, describe, save_embeddings
from study.outcomes import Outcome
from study.outcomes_table import read_outcomes

# Real: CLIP ViT-B/32, see data/README.md. The table has no scores.
REAL = Path(__file__).parent / "data" / "clip_vit_b32_outcomes.csv"
GAINS = {"SUN397": 0.321, "Cars": 0.460, "RESISC45": 0.878, "EuroSAT": 0.981, "SVHN": 0.961, "GTSRB": 0.984, "MNIST": 0.992, "DTD": 0.638}


def synthetic_score(outcome: Outcome, index: int) -> float:
    """A made-up "iimm" that follows the real gain with a regular error of 0.02: NOT a measurement."""
    return round(0.30 + 0.20 * outcome.gain + (0.02 if index % 2 else -0.02), 4)


def write_scores(path: Path, split: str = "train", measure: str = "iimm") -> Path:
    """A table as get_metric_scores.py writes it, with a SYNTHETIC score for each real outcome."""
    columns = ("data", "model", "finetuning", "split", "proportion", "measure", "score")
    rows = [(of.task, of.model, "none", split, 1.0, measure, synthetic_score(of, index)) for index, of in enumerate(read_outcomes(REAL))]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


def write_embeddings(
    path: Path, iimm: float, zero_shot: float, *, dataset: str = "FMoW", model: str = "clip", tuning: str = "none", split: str = "train"
) -> Path:
    """SYNTHETIC embeddings of 100 images and 2 classes with this IIMM and this zero-shot accuracy (a multiple of 0.01).

    All rows share one direction with weight sqrt(iimm) and are orthogonal otherwise, so every cosine is iimm. All
    cosines of an image being the same, the first class is answered: the accuracy is that class's share.
    """
    images, classes = 100, 2
    rows = np.sqrt(1 - iimm) * np.eye(images + classes, 1 + images + classes, k=1)
    rows[:, 0] = np.sqrt(iimm)
    labels = (np.arange(images) >= round(zero_shot * images)).astype(np.int64)
    facts = describe(model=model, tuning=tuning, dataset=dataset, split=split, classnames=["a", "b"], templates=["{c}"])
    return save_embeddings(path, Embeddings(rows[:images].astype(np.float32), rows[images:].astype(np.float32), labels, [], facts))
