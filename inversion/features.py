"""Native features: what the towers make of the images or texts of a collection, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from common.errors import UserError
from common.stages import staged
from datasets.registry import task_slug
from datasets.retrieval.collection import Collection
from engine.embed import LoadOptions, embed_images
from engine.runtime import Runtime
from models.encoder import Encoder
from models.projections import without_projections
from models.selection import Selection
from models.tensors import read_safetensors, write_safetensors

FORMAT = "clipscope-features/1"
TEXTS_PER_PASS = 256
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function that a module is made of


@staged("features")
def native_features(
    runtime: Runtime,
    selection: Selection,
    collection: Collection,
    name: str,
    split: str,
    load: LoadOptions,
    cache: Path | None,
    projected: bool = True,
) -> NDArray[np.float32]:
    """Unit features float32 [N, D] of the items of ``collection``, in its order: ``encode_image`` or ``encode_text`` of each.

    With ``projected=False`` they are the unit vectors that go into the last projections of the towers
    (:func:`models.projections.without_projections`). ``cache`` is a folder in which features are kept under all that decides
    them (:func:`identity`), so that none is computed twice and none is ever stale; None keeps nothing. Every process of a
    run gets all rows. Raises :class:`UserError` for images that cannot be read and for features that are not finite.
    """
    if cache is None:
        return _compute(runtime, selection.encoder, collection, name, split, load, projected)
    decides = identity(runtime, selection, collection, load, projected)
    path = cache_path(cache / selection.label, decides, name, split)
    kept = _kept(path, decides)
    if all(runtime.gather_objects([kept is not None])) and kept is not None:  # as every process sees it, so that all do the same
        return kept
    features = _compute(runtime, selection.encoder, collection, name, split, load, projected)
    if runtime.is_main:
        write_safetensors(path, {"features": torch.from_numpy(features)}, decides)
    runtime.gather_objects([None])  # wait: who asks again finds the file
    return features


def identity(runtime: Runtime, selection: Selection, collection: Collection, load: LoadOptions, projected: bool) -> dict[str, str]:
    """All that decides the features of ``collection``, as the header of their file says it.

    The weights alone do not: the same ones run with GELU or QuickGELU, and with other numbers of heads. So the model's name
    and the modules it is made of count too, and for images how they are decoded and resized.
    """
    encoder = selection.encoder
    decides = {
        "format": FORMAT,
        "modality": collection.modality,
        "fingerprint": collection.fingerprint,
        "model": selection.model,
        "checkpoint_sha256": selection.sha256,
        "modules_sha256": hashlib.sha256(_ADDRESS.sub("", repr(encoder.model)).encode()).hexdigest(),
        "precision": runtime.precision,
        "projected": str(projected),
    }
    if collection.modality == "image":
        decides |= {"decode": load.decode, "preprocess": encoder.preprocess.description, "pillow": PIL.__version__}
    return decides


def architecture(encoder: Encoder) -> str:
    """The architecture that was chosen for the weights: the same ones also run with GELU for QuickGELU. Empty where they come with it."""
    return "" if encoder.source.pretrained is None else encoder.source.architecture


def cache_path(folder: Path, decides: dict[str, str], name: str, split: str) -> Path:
    """The file of these features in ``folder``, whether it is there or not."""
    mark = hashlib.sha256(repr(sorted(decides.items())).encode()).hexdigest()[:12]
    return folder / f"{task_slug(name)}_{split}_{decides['modality']}-{mark}.safetensors"


def _kept(path: Path, decides: dict[str, str]) -> NDArray[np.float32] | None:
    """The features in ``path``; None when they are not there, are damaged or are others: then they are made anew."""
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_safetensors(path)
    except UserError:
        return None
    return tensors["features"].numpy() if metadata == decides and "features" in tensors else None


def _compute(
    runtime: Runtime, encoder: Encoder, collection: Collection, name: str, split: str, load: LoadOptions, projected: bool
) -> NDArray[np.float32]:
    encoder.to(runtime.device)
    with nullcontext() if projected else without_projections(encoder):
        if collection.modality == "text":
            features = embed_texts(runtime, encoder, collection.texts)
        else:
            features = _embed_every_image(runtime, encoder, collection, name, split, load)
    if not np.isfinite(features).all():
        raise UserError(
            f"The features of {name} are not finite; the model's weights have diverged, "
            "or overflow in fp16 (then use --precision bf16 or fp32)."
        )
    return features


def embed_texts(runtime: Runtime, encoder: Encoder, texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Unit text embeddings float32 [N, D]. Texts of like length share a pass, which is cut to the longest of them."""
    tokens = encoder.tokenize(texts)
    by_length = tokens.count_nonzero(dim=1).argsort(stable=True)  # the padding of towers whose passes can be cut is 0
    share = by_length[runtime.rank :: runtime.world] if len(texts) >= runtime.world else by_length
    with torch.inference_mode(), runtime.autocast():
        rows = [encoder.encode_text(encoder.text_tower.trim(tokens[some])) for some in share.split(TEXTS_PER_PASS)]
    positions = runtime.gather_rows(share.to(runtime.device)).numpy()
    _, first = np.unique(positions, return_index=True)  # fewer texts than processes: each of these has all of them
    return runtime.gather_rows(torch.cat(rows)).numpy()[first]


def _embed_every_image(
    runtime: Runtime, encoder: Encoder, collection: Collection, name: str, split: str, load: LoadOptions
) -> NDArray[np.float32]:
    """Every unreadable image is met before any is complained of, so that one run tells them all."""
    n, per_process = len(collection), -(-len(collection) // runtime.world)
    patient = replace(load, max_skipped=n, batch_size=min(load.batch_size, per_process))  # no process without an image
    embedded = embed_images(runtime, encoder, collection.as_task(name, split), patient)
    if unreadable := sorted(embedded.skipped.entries):
        listed = "; ".join(f"'{sample_id}' ({reason.rstrip('.')})" for sample_id, reason in unreadable[:3])
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise UserError(
            f"{len(unreadable)} of the {n} images of {name} cannot be read: {listed}{more}; "
            "items are judged by their positions, so none can be left out: replace them."
        )
    return embedded.embeddings
