"""What the METHODS table says of a few-shot method, and what a method gives back.

Notation, here and in ``fewshot/methods/``: f are unit image features of N images [N, D], F those of the M labelled images, the keys
of the cache [M, D], W the text classifier [C, D], Z = 100 f Wᵀ zero-shot logits, V one-hot labels of the cache [M, C].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fewshot.data import Features, FewShotData
from fewshot.options import FewShotOptions

if TYPE_CHECKING:
    from datasets.task import Task
    from engine.embed import LoadOptions
    from engine.runtime import Runtime
    from models.selection import Selection

CORRECTED = "_corrected"  # ends the names of methods that compare images by adapted features


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier. ``logits`` maps N images to [N, C]; the row of an image depends on no other image, unless as released.

    ``val_correct`` counts the validation images that are classified correctly; None where there are none. ``facts`` go into
    the result's file.
    """

    hyperparameters: Mapping[str, float]
    logits: Callable[[Features], Tensor]
    val_correct: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ImageData:
    """What methods that train the towers get besides features: the model, and the images of the splits by their names.

    Other sets that are tested have their images in ``tasks`` and the features they will be named by in ``features``.
    """

    runtime: Runtime
    selection: Selection
    tasks: Mapping[str, Task]
    load: LoadOptions
    data: FewShotData
    features: Mapping[str, Features] = field(default_factory=dict)


Fit = Callable[[FewShotData, FewShotOptions], Fitted]
FitWithImages = Callable[[ImageData, FewShotOptions], Fitted]


@dataclass(frozen=True)
class Method:
    """A few-shot method; one that trains the towers has ``fit_with_images``, and its ``fit`` is not used."""

    name: str
    description: str
    paper: str
    needs_adapter: bool
    trains: bool
    fit: Fit
    fit_with_images: FitWithImages | None = None


def with_corrected(
    name: str, description: str, paper: str, fit: Callable[[FewShotData, FewShotOptions, bool], Fitted], trains: bool = False
) -> tuple[Method, Method]:
    """A method that compares images, and its overlap-corrected version: the third argument of ``fit`` tells them apart."""
    return (
        Method(name, description, paper, False, trains, lambda data, options: fit(data, options, False)),
        Method(
            name + CORRECTED,
            f"{description}, by adapted image features",
            f"{paper}; Kravets and Namboodiri, BMVC 2024 (arXiv:2409.11338)",
            True,
            trains,
            lambda data, options: fit(data, options, True),
        ),
    )
