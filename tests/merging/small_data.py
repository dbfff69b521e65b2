"""A small encoder, models tuned from it at random and images for them: what methods that look at images get, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.runtime import start
from merging.data import LazyHeads, MergeData
from merging.weights import Pool, TensorWeights, make_pool
from models.encoder import Encoder
from models.loading import load_encoder

TEMPLATES = ("a photo of a {c}.", "{c}")


def merge_data(model: Path, images: Path, names: tuple[str, ...] = ("first", "second"), device: str = "cpu", **options: Any) -> MergeData:
    """Every model's task are the same images; their class names differ."""
    encoder = load_encoder(str(model))
    tasks = {name: load_task(f"imagefolder:{images}", "test", templates=tuple(f"{name} {t}" for t in TEMPLATES)) for name in names}
    return MergeData(start(device, "fp32"), encoder, tasks, LazyHeads(encoder, tasks), LoadOptions(num_workers=0), **options)


def moved_models(encoder: Encoder, names: tuple[str, ...] = ("first", "second"), size: float = 0.1) -> Pool:
    """The encoder's image tower, less its projection, as base, and a model around it for each name."""
    own = {name: t.cpu() for name, t in encoder.model.state_dict().items() if name.startswith("visual.") and name != "visual.proj"}
    models = []
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        tensors = {key: tensor + size * torch.randn(tensor.shape, generator=generator) for key, tensor in own.items()}
        models.append(TensorWeights(name, tensors))
    return make_pool(TensorWeights("base", own), models)
