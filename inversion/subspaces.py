"""Baselines without optimisation: native features in a subspace where image-image and text-text cosines mean more.

``pca`` (Re-evaluating the Intra-Modal Misalignment Hypothesis in CLIP, CVPR 2026, arXiv 2603.16100) keeps the directions in
which texts of many objects differ. ``iso`` (IsoCLIP, CVPR 2026, arXiv 2603.19862) keeps the middle of the spectrum of what
training has aligned. Either costs one decomposition and is published as better than inversion. All is computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from models.zoo import ModelSource

Matrix = NDArray[np.float64]

PROJECTIONS = ("pca", "iso")
PCA_PROMPT = "a photo of {c}"  # with the names of ImageNet's classes
ROWS = 65536  # projected at once: float64 takes its room


class Dropped(NamedTuple):
    """How many singular directions IsoCLIP leaves out at the top and at the bottom of the spectrum."""

    top: int
    bottom: int


# IsoCLIP's, by (architecture, weights) and by the modality that is projected. Those of OpenCLIP are read as Cross the Gap's weights.
DROPPED: dict[tuple[str, str], dict[str, Dropped]] = {
    ("ViT-B-32-quickgelu", "openai"): {"image": Dropped(150, 50), "text": Dropped(20, 100)},
    ("ViT-B-16-quickgelu", "openai"): {"image": Dropped(200, 50), "text": Dropped(10, 50)},
    ("ViT-L-14-quickgelu", "openai"): {"image": Dropped(250, 200), "text": Dropped(10, 300)},
    ("ViT-B-32", "datacomp_xl_s13b_b90k"): {"image": Dropped(50, 50)},
    ("ViT-B-16", "datacomp_xl_s13b_b90k"): {"image": Dropped(100, 100), "text": Dropped(2, 150)},
    ("ViT-B-16-SigLIP2", "webli"): {"image": Dropped(350, 50)},
}


def dropped(source: ModelSource, modality: str, top: int | None = None, bottom: int | None = None) -> Dropped:
    """What the user says, else what IsoCLIP's table says; a :class:`UserError` when neither does, or only half is said."""
    if top is not None and bottom is not None:
        return Dropped(top, bottom)
    if top is not None or bottom is not None:
        given, lacking = ("--drop-top", "--drop-bottom") if bottom is None else ("--drop-bottom", "--drop-top")
        raise UserError(f"{given} is one end of the spectrum; give the other with {lacking} too (0 keeps all of it).")
    known = DROPPED.get((source.architecture, source.pretrained or ""), {})
    if modality not in known:
        raise UserError(
            f"IsoCLIP has no published numbers for the {modality} side of '{source.name}'; say with --drop-top and --drop-bottom "
            "how many singular directions to leave out (published: CLIP ViT-B/32, images, 150 and 50)."
        )
    return known[modality]


def principal(text_features: NDArray[np.floating], keep: int | None = None) -> Matrix:
    """PCA's projection [keep, D]: the principal directions of text features [N, D], orthonormal, of greatest variance first.

    Eigenvectors of the covariance (of the rows minus their mean); ``keep`` is D / 2 by default. Raises :class:`ValueError`
    where there are not so many.
    """
    rows = np.asarray(text_features, dtype=np.float64)
    keep = rows.shape[1] // 2 if keep is None else keep
    if not 0 < keep <= min(len(rows) - 1, rows.shape[1]):
        raise ValueError(f"{len(rows)} texts in {rows.shape[1]} dimensions do not have {keep} principal directions")
    _, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))  # ascending
    return np.ascontiguousarray(vectors.T[::-1][:keep])


def isotropic(image_projection: Matrix | None, text_projection: Matrix | None, modality: str, leave_out: Dropped) -> Matrix:
    """IsoCLIP's projection [out, in] of ``modality``, in place of the tower's own.

    With the projections W_i [out, in_i] and W_t [out, in_t] (None: the identity) and the inter-modal operator
    Psi = W_i^T W_t = U S V^T [in_i, in_t], it is W_i U_k U_k^T for images and W_t V_k V_k^T for texts, where k are the
    singular directions without the ``leave_out.top`` of greatest and the ``leave_out.bottom`` of least singular value,
    counted among min(in_i, in_t). Raises :class:`UserError` when none is left.
    """
    own_image, own_text = _both(image_projection, text_projection)
    u, singular, vt = np.linalg.svd(own_image.T @ own_text, full_matrices=False)
    count = len(singular)
    if leave_out.top + leave_out.bottom >= count:
        raise UserError(
            f"--drop-top {leave_out.top} and --drop-bottom {leave_out.bottom} leave none of this encoder's {count} singular directions."
        )
    kept = slice(leave_out.top, count - leave_out.bottom)
    own, basis = (own_image, u[:, kept]) if modality == "image" else (own_text, vt[kept].T)
    return own @ basis @ basis.T


def _both(image_projection: Matrix | None, text_projection: Matrix | None) -> tuple[Matrix, Matrix]:
    """Both in float64, with the identity for a tower that has none; its width is what the other one maps to."""
    if image_projection is None and text_projection is None:
        raise UserError("Neither tower of this encoder ends with a projection, so IsoCLIP has nothing to decompose; use --project pca.")
    width = len(text_projection if image_projection is None else image_projection)  # type: ignore[arg-type]
    image, text = (np.eye(width) if each is None else np.asarray(each, dtype=np.float64) for each in (image_projection, text_projection))
    return image, text


def project(features: NDArray[np.floating], projection: Matrix) -> NDArray[np.float32]:
    """Unit float32 [N, out]: ``features`` [N, in] after ``projection`` [out, in], renormalised."""
    projected = np.empty((len(features), len(projection)), dtype=np.float32)
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS].astype(np.float64) @ projection.T
        projected[start : start + ROWS] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=np.finfo(np.float64).tiny)
    return projected
