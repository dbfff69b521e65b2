"""What is inverted, how and into which folder, as one job: the same for the scripts and for the studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from engine.embed import LoadOptions
from engine.runtime import Runtime
from inversion.features import architecture
from inversion.items import CLASSES, Items
from inversion.optimise import InversionOptions, Tower
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from inversion.pseudo_tokens import inversion_folder
from inversion.run import Job
from models.selection import Selection


@dataclass(frozen=True)
class Setting:
    """How items are inverted, by OTI or OVI (``kind``). The ``template`` is for images and the names of classes."""

    kind: str
    n_tokens: int
    template: str
    options: InversionOptions

    def template_for(self, items: Items) -> str:
        """The sentence around the pseudo-tokens, or around a class name; captions are inverted as they are."""
        return self.template if self.kind == "oti" or items.side == CLASSES else "{}"


def check_precision(runtime: Runtime) -> None:
    """A :class:`UserError` for fp16."""
    if runtime.precision == "fp16":
        raise UserError("--precision fp16 would need a loss scaler, which makes items depend on each other; use bf16 or fp32.")


def make_job(
    runtime: Runtime,
    selection: Selection,
    items: Items,
    setting: Setting,
    load: LoadOptions,
    outfolder: Path,
    exp_name: str,
    targets: Callable[[], NDArray[np.float32]],
) -> Job:
    """The job that inverts ``items`` below ``outfolder``; ``targets`` as in :class:`~inversion.run.Job`."""
    encoder, kind, n_tokens = selection.encoder, setting.kind, setting.n_tokens
    template = setting.template_for(items)
    tower: Tower = PseudoText(encoder, template, n_tokens) if kind == "oti" else PseudoImage(encoder, n_tokens)
    hyperparameters = {
        "kind": kind,
        **_of_encoder(selection),
        **_of_items(items),
        "template": template,
        "num_pseudo_tokens": n_tokens,
        **_of_options(setting.options),
        "precision": runtime.precision,
        "decode": load.decode if kind == "oti" else None,
        "preprocess": encoder.preprocess.description if kind == "oti" else None,
        "exp_name": exp_name,
    }
    folder = inversion_folder(outfolder, kind, exp_name, items.name, items.split, items.side)
    return Job(folder, items.collection, tower, targets, setting.options, hyperparameters)


def _of_encoder(selection: Selection) -> dict[str, str]:
    return {
        "model": selection.model,
        "tuning": selection.tuning,
        "checkpoint": selection.checkpoint,
        "checkpoint_sha256": selection.sha256,
        "architecture": architecture(selection.encoder),
    }


def _of_items(items: Items) -> dict[str, str | int]:
    return {
        "dataset": items.name,
        "split": items.split,
        "side": items.side,
        "fingerprint": items.collection.fingerprint,
        "n_items": len(items.collection),
        "n_empty": items.n_empty,
    }


def _of_options(options: InversionOptions) -> dict[str, Any]:
    """What of ``options`` decides the result, by the names of the flags."""
    stop = {name: getattr(options, name) for name in ("stop_at_cosine", "stop_below", "stop_over", "check_every")}
    return {
        "steps": options.steps,
        "learning_rate": options.lr,
        "weight_decay": options.weight_decay,
        "seed": options.seed,
        "snapshots": list(options.snapshots),
        "early_stop": stop if options.stops_early else None,
    }
