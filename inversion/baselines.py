"""Native features in a subspace (:mod:`inversion.subspaces`): what inversion must be compared with, since it costs nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from common.errors import UserError, unknown_name
from datasets.retrieval.collection import Collection
from datasets.retrieval.task import RetrievalTask
from datasets.sources.imagenet import imagenet_classnames
from datasets.task import fill
from inversion.sides import Features, Role, collection_of
from inversion.subspaces import PCA_PROMPT, PROJECTIONS, Matrix, dropped, isotropic, principal, project
from models.encoder import Encoder
from models.projections import image_projection, text_projection
from models.selection import Selection


@dataclass(frozen=True)
class Projection:
    """A subspace for native features (:mod:`inversion.subspaces`): ``pca``, or ``iso`` with what it drops, None as published."""

    name: str
    drop_top: int | None = None
    drop_bottom: int | None = None

    def __post_init__(self) -> None:
        if self.name not in PROJECTIONS:
            raise unknown_name("projection", self.name, PROJECTIONS)
        if self.name != "iso" and (self.drop_top is not None or self.drop_bottom is not None):
            raise UserError(f"--drop-top and --drop-bottom belong to '--project iso'; leave them out with '{self.name}'.")

    @property
    def label(self) -> str:
        """The name, and what is dropped where that was said: ``iso 150/50``."""
        return self.name if self.drop_top is None else f"{self.name} {self.drop_top}/{self.drop_bottom}"


def projected_features(features: Features, task: RetrievalTask, role: Role, projection: Projection) -> NDArray[np.float32]:
    """The native features of one side in the subspace that ``projection`` names, unit rows."""
    selection, collection = features.selection, collection_of(task, role)
    _refuse_adapter(selection)
    if projection.name == "pca":
        return project(features.native(collection, task.name, task.split), principal(object_texts(features)))
    leave_out = dropped(selection.encoder.source, collection.modality, projection.drop_top, projection.drop_bottom)
    matrix = isotropic(*projections_of(selection.encoder), collection.modality, leave_out)
    return project(features.native(collection, task.name, task.split, projected=False), matrix)


def projections_of(encoder: Encoder) -> tuple[Matrix | None, Matrix | None]:
    """The last linear maps [out, in] of the image and of the text tower, float64; None for a tower that has none. No biases."""
    image, text = image_projection(encoder), text_projection(encoder)
    return None if image is None else _float64(image), None if text is None else _float64(text)


def _float64(matrix: Tensor) -> Matrix:
    return matrix.detach().double().cpu().numpy()


def object_texts(features: Features) -> NDArray[np.float32]:
    """Text features [1000, D] of a prompt for each of ImageNet's classes."""
    prompts = [fill(PCA_PROMPT, name) for name in imagenet_classnames()]
    texts = Collection.of_texts(prompts, [str(number) for number in range(len(prompts))])
    return features.native(texts, "ImageNet", "classes")


def _refuse_adapter(selection: Selection) -> None:
    encoder = selection.encoder
    if not (isinstance(encoder.image_adapter, nn.Identity) and isinstance(encoder.text_adapter, nn.Identity)):
        raise UserError(f"'{selection.checkpoint}' has an adapter behind its projections, so --project does not apply to it.")
