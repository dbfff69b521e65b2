"""A plan of merging that really runs, in seconds: coloured images, a random model, fine-tuned models that are it with a little noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.helpers import write_images
from tests.study.small_plans import write_tables

METHODS: dict[str, dict[str, Any]] = {
    "simple_average": {},
    "task_arithmetic": {"scaling": 0.3},
    "ties": {},
    "emr": {"per_model": True},
    "fisher": {"examples": 6},
    "task_wise_adamerging": {"adapt_steps": 2, "adapt_batch_size": 4},
}
TRAIN: dict[str, Any] = {"towers": "vision", "optimizer": "Adam", "beta2": 0.999, "lr": 1e-3, "batch_size": 8, "steps": 4}
TASKS = ("one", "two")


def write_plan(folder: Path, model: Path, methods: dict[str, dict[str, Any]] = METHODS, **merging: Any) -> Path:
    """A plan with these methods and keys of [merging], beside its images and fine-tuned models, which are written once."""
    for seed, name in enumerate(TASKS):
        if not (folder / name).exists():
            write_images(folder / name / "train", 6, seed)
            write_images(folder / name / "test", 4, seed + 10)
    source = {} if "train" in merging else {"fine_tunes": str(write_fine_tunes(folder, model) / "{task}.safetensors")}
    tables = {"tasks": [f"imagefolder:{folder / name}" for name in TASKS], **source, **merging, "methods": methods}
    top = {"title": "Small merging", "models": [str(model)], "val_p": 0.2}
    return write_tables(folder / "merging.toml", top, {"merging": tables})


def write_fine_tunes(folder: Path, model: Path) -> Path:
    """One file for each task: ``tuned/one.safetensors``."""
    base = load_file(model / "open_clip_model.safetensors")
    for seed, name in enumerate(TASKS):
        path = folder / "tuned" / f"{name}.safetensors"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            generator = torch.Generator().manual_seed(seed)
            tuned = [key for key in base if key.startswith("visual.")]
            noise = {key: 0.02 * torch.randn(base[key].shape, generator=generator) for key in tuned}
            save_file({key: tensor + noise.get(key, 0) for key, tensor in base.items()}, path)
    return folder / "tuned"
