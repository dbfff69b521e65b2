"""What a plan says of modality inversion: data sets, pseudo-tokens of each model, baselines. Read by study.plan_inversion_tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from inversion.published import LEARNING_RATE, SEED, STEPS, TEMPLATE, WEIGHT_DECAY

OTI, OVI = "oti", "ovi"  # from an image into the text tower, from a text into the image tower
PCA, ISO = PROJECTIONS = "pca", "iso"  # those of inversion.subspaces
MODALITY = {OTI: "image", OVI: "text"}  # of what is inverted


@dataclass(frozen=True)
class InversionSetting:
    """One way to learn pseudo-tokens: the values of ``oti.py`` and ``ovi.py``; the defaults are those of Cross the Gap."""

    kind: str  # oti or ovi
    num_pseudo_tokens: int = 1
    steps: int = STEPS[OTI]
    lr: float = LEARNING_RATE
    weight_decay: float = WEIGHT_DECAY
    template: str = TEMPLATE  # of OVI for the names of classes only: a caption is inverted as it is
    snapshots: tuple[int, ...] = ()  # steps after which what was learnt so far is kept too
    seed: int = SEED

    def values(self) -> dict[str, Any]:
        """All of it, in JSON's types."""
        return {**asdict(self), "snapshots": list(self.snapshots)}


@dataclass(frozen=True)
class ModelInversion:
    """What differs from one model to another: how many pseudo-tokens, and how many singular directions IsoCLIP drops."""

    num_pseudo_tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by the kind of inversion; one where it is not there
    iso: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # by modality: of the largest and of the smallest


@dataclass(frozen=True)
class InversionPlan:
    """The table [inversion] of a plan and those below it; everything in it has been checked."""

    image_tasks: tuple[str, ...] = ()  # images are searched by images
    text_tasks: tuple[str, ...] = ()  # texts are searched by texts
    zero_shot_tasks: tuple[str, ...] = ()  # classified, natively and with inverted features on either side
    misalignment: tuple[str, ...] = ()  # those of image_tasks of which the histograms of cosines are wanted
    project: tuple[str, ...] = ()  # baselines without optimisation: projections of the native features
    fuse: tuple[float, ...] = ()  # shares of the inverted similarity in a sum with the native one
    seeds: tuple[int, ...] = (SEED,)
    oti: InversionSetting = InversionSetting(OTI)
    ovi: InversionSetting = InversionSetting(OVI, steps=STEPS[OVI])
    models: Mapping[str, ModelInversion] = field(default_factory=dict)

    def settings(self, kind: str, model: str) -> list[InversionSetting]:
        """How ``model``'s pseudo-tokens are learnt: every number of them with every seed."""
        shared = self.oti if kind == OTI else self.ovi
        counts = self._of(model).num_pseudo_tokens.get(kind, (1,))
        return [replace(shared, num_pseudo_tokens=count, seed=seed) for count, seed in product(counts, self.seeds)]

    def iso(self, modality: str, model: str) -> tuple[int, int] | None:
        """(largest, smallest) singular directions that IsoCLIP drops for ``model``; None where nobody has said, so that it is not run."""
        return self._of(model).iso.get(modality)

    def _of(self, model: str) -> ModelInversion:
        return self.models.get(model, ModelInversion())
