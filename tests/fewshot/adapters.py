"""Checkpoints of parallel adapters with drawn weights, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import torch

from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.loading import load_encoder
from models.parallel_adapter import parallel_adapters
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning


def write_adapter(path: Path, model: Path | str, seed: int = 0, size: float = 2.0) -> Path:
    """Adapters on ``model`` that change its features a good deal, written to ``path``."""
    encoder, options = load_encoder(str(model)), TuningOptions(bottleneck=8)
    base = base_sha256(encoder)
    apply_tuning(encoder, "parallel-adapter", options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in parallel_adapters(encoder).values():
            adapter.up.weight.normal_(0, size, generator=generator)
    save_checkpoint(path, encoder, make_header(encoder, "parallel-adapter", options, base))
    return path
