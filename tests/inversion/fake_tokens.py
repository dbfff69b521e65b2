"""Finished inversions with random features, as oti.py and ovi.py would have left them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from common.files import write_json
from datasets.retrieval.collection import Collection
from inversion.optimise import Inverted
from inversion.pseudo_tokens import FORMAT, HYPERPARAMETERS, inversion_folder, save_shard
from models.selection import Selection

STEPS = (2, 5)


def write_inversion(
    outfolder: Path,
    kind: str,
    exp_name: str,
    collection: Collection,
    selection: Selection,
    *,
    dataset: str,
    split: str,
    side: str,
    **more: object,
) -> np.ndarray:
    """Write an inversion of ``collection`` after 2 and 5 steps; returns its features float32 [N, 2, D]."""
    n, width = len(collection), selection.encoder.embed_dim
    generator = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(n, len(STEPS), width, generator=generator), dim=-1)
    tokens, losses = torch.randn(n, len(STEPS), 1, 8, generator=generator), torch.rand(n, len(STEPS), generator=generator)
    inverted = Inverted(tokens, features, losses, torch.rand(STEPS[-1]), STEPS, torch.full((n,), STEPS[-1]))
    folder = inversion_folder(outfolder, kind, exp_name, dataset, split, side)
    hyperparameters = {
        **{"format": FORMAT, "kind": kind, "exp_name": exp_name, "dataset": dataset, "split": split, "side": side, "n_items": n},
        **{"model": selection.model, "checkpoint": selection.checkpoint, "checkpoint_sha256": selection.sha256},
        **{"template": "a photo of {}", "num_pseudo_tokens": 1, "learning_rate": 0.02, "steps": STEPS[-1], "snapshots": list(STEPS)},
        **more,
    }
    write_json(folder / HYPERPARAMETERS, hyperparameters)
    order = torch.randperm(n, generator=generator).tolist()  # as they were finished
    save_shard(folder, collection, order, _rows(inverted, order), hyperparameters)
    return features.numpy()


def _rows(inverted: Inverted, order: list[int]) -> Inverted:
    of_items = {name: getattr(inverted, name)[order] for name in ("pseudo_tokens", "features", "losses", "stopped")}
    return Inverted(**of_items, curve=inverted.curve, steps=inverted.steps)
