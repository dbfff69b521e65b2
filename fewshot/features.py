"""What the image tower makes of the images of a task, with and without its adapters, computed once and kept on disk.

The original and the adapted features of the same images lie in two files, each under the hash of all that decides it. So a second
adapter costs one pass with the adapters on, and nothing is ever stale. What is missing of both is computed in one pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.stages import staged
from datasets.task import Task
from engine.embed import BroughtBack, LoadOptions, batches_of, embed_classes, of_all_processes
from engine.loading import SkippedImages
from engine.runtime import Runtime
from fewshot import augmented
from fewshot.augmented import views_of
from fewshot.data import Features
from fewshot.feature_files import Rows, keep, kept
from models.encoder import Encoder
from models.parallel_adapter import NAME, adapted_and_original, without_adapters
from models.selection import Selection
from models.zoo import canonical_name

ORIGINAL, ADAPTED = "original", "adapted"


@dataclass(frozen=True)
class Towers:
    """The encoder, where it runs, and the folder in which features are kept; None keeps nothing.

    ``selection`` is a model as it was published, or a checkpoint of parallel adapters on one.
    """

    runtime: Runtime
    selection: Selection
    load: LoadOptions
    cache: Path | None

    @property
    def encoder(self) -> Encoder:
        """The encoder, with adapters where there are any."""
        return self.selection.encoder

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of features that there are."""
        return (ORIGINAL,) if self.selection.header is None else (ADAPTED, ORIGINAL)

    @cached_property
    def skipped(self) -> SkippedImages:
        """The images of all tasks that could not be read."""
        return SkippedImages(self.load.max_skipped)

    @staged("features")
    def features(self, task: Task, views: int = 0, seed: int = 0) -> tuple[Features, NDArray[np.int64]]:
        """Features of the images of ``task`` on the device, and the indices [n] of these images: of those that can be read.

        With 0 ``views``, of images as they are tested; else of N random views, unit(sum_v raw(view_v(image))): raw features are
        averaged, then brought to length 1. More unreadable images than ``max_skipped`` are a :class:`UserError`.
        """
        identities = {kind: self.identity(kind, task, views, seed) for kind in self.kinds}
        found = {kind: None if self.cache is None else kept(self.cache, task, of) for kind, of in identities.items()}
        missing = [kind for kind in self.kinds if not all(self.runtime.gather_objects([found[kind] is not None]))]
        made = self._compute(task, views, seed, missing) if missing else {}
        if self.cache is not None and self.runtime.is_main:
            for kind, rows in made.items():
                keep(self.cache, task, identities[kind], rows)
        return self._together(task, {kind: rows for kind, rows in (found | made).items() if rows is not None})

    def classifier(self, task: Task) -> Tensor:
        """Unit text embeddings [C, D] of the classes, on the device; adapters in the image tower have no part in them."""
        return torch.from_numpy(embed_classes(self.runtime, self.encoder, task)).to(self.runtime.device)

    def identity(self, kind: str, task: Task, views: int = 0, seed: int = 0) -> dict[str, str]:
        """All that decides the features of ``task``."""
        return self.model_identity(kind) | {
            "kind": kind,
            "fingerprint": task.fingerprint,
            "decode": "full" if views else self.load.decode,
            "pillow": PIL.__version__,
            "views": f"{views}, seed {seed}, version {augmented.VERSION}" if views else "none",
        }

    def model_identity(self, kind: str) -> dict[str, str]:
        """Of that, what the encoder has to do with. Features of kind ``original`` know nothing of an adapter."""
        header = self.selection.header
        return {
            "model": canonical_name(self.encoder.source.name),
            "base_sha256": self.selection.sha256 if header is None else header.base_sha256,
            "adapter_sha256": self.selection.sha256 if kind == ADAPTED else "",
            "modules_sha256": self._modules_sha256,
            "preprocess": self.encoder.preprocess.description,
            "precision": self.runtime.precision,
        }

    @cached_property
    def _modules_sha256(self) -> str:
        """Of what the encoder is made of besides adapters: the same weights also run with GELU for QuickGELU, or other heads."""
        modules = self.encoder.model.named_modules()
        told = [f"{name} {type(module).__name__} {module.extra_repr()}" for name, module in modules if NAME not in name.split(".")]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def _compute(self, task: Task, views: int, seed: int, kinds: Sequence[str]) -> dict[str, Rows]:
        """The rows of each of ``kinds``."""
        images, load, once = task, self.load, max(views, 1)
        if views:  # a cache of random views would serve one pass; an unreadable image counts once, however many views it has
            images = views_of(task, self.encoder.image_size, views, seed)
            load = replace(load, pixel_cache=None, max_skipped=len(images))
        raw, places, skipped = raw_features(self.runtime, self.encoder, images, load, kinds)
        self._note(dict(skipped.entries))
        check_usable(task, raw)
        indices = places[::once] // once  # the views of an image are read all or none
        means = {kind: rows.unflatten(0, (-1, once)).mean(dim=1) for kind, rows in raw.items()}
        return {kind: Rows(F.normalize(rows, dim=-1), indices, dict(skipped.entries)) for kind, rows in means.items()}

    def _together(self, task: Task, found: Mapping[str, Rows]) -> tuple[Features, NDArray[np.int64]]:
        device, rows = self.runtime.device, found[ORIGINAL]
        self._note(rows.unreadable)
        indices = rows.indices.numpy()
        adapted = found[ADAPTED].features.to(device) if ADAPTED in found else None
        return Features(rows.features.to(device), adapted, torch.from_numpy(task.labels[indices]).to(device)), indices

    def _note(self, unreadable: Mapping[str, str]) -> None:
        """Add images to those that could not be read; each counts once."""
        known = {sample_id for sample_id, _ in self.skipped.entries}
        self.skipped.extend((sample_id, reason) for sample_id, reason in unreadable.items() if sample_id not in known)
        self.skipped.check()


def raw_features(
    runtime: Runtime, encoder: Encoder, task: Task, load: LoadOptions, kinds: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor, SkippedImages]:
    """The image tower's features by kind, float32 [n, D], not normalised, and the indices [n] of the images that could be read.

    Both kinds come from one pass. All processes share the work and get all rows, in the order of the task.
    """
    encoder.to(runtime.device)
    skipped, indices = SkippedImages(load.max_skipped), [torch.empty(0, dtype=torch.int64)]
    parts = {kind: BroughtBack() for kind in kinds}
    with torch.inference_mode(), runtime.autocast(), nullcontext() if ADAPTED in kinds else without_adapters(encoder):
        for batch in batches_of(runtime, encoder, task, load, skipped):
            made = adapted_and_original(encoder, batch.pixels) if len(kinds) == 2 else [encoder.raw_image_features(batch.pixels)]
            for kind, features in zip(kinds, made, strict=True):
                parts[kind].add(features)
            indices.append(batch.indices)
    places = runtime.gather_rows(torch.cat(indices))
    order = places.argsort()
    rows = {kind: runtime.gather_rows(of.together(encoder.embed_dim))[order] for kind, of in parts.items()}
    return rows, places[order], of_all_processes(runtime, skipped)


def check_usable(task: Task, features: Mapping[str, Tensor]) -> None:
    """Refuse to go on without features, or with some that are not numbers."""
    if not all(len(rows) for rows in features.values()):
        raise UserError(f"No image of {task.name} could be read, so there is nothing to classify.")
    if not all(bool(rows.isfinite().all()) for rows in features.values()):
        raise UserError(
            f"The features of {task.name} are not finite; the weights of the model or of the adapter have diverged, "
            "or overflow in fp16 (then use --precision bf16 or fp32)."
        )
