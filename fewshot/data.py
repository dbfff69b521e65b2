"""What a few-shot method may see: unit features of the labelled images, and the text classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from common.errors import UserError


@dataclass(frozen=True, eq=False)
class Features:
    """``original`` and ``adapted`` float32 [N, D]: unit rows without and with the adapter; ``labels`` int64 [N]."""

    original: Tensor
    adapted: Tensor | None
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Features:
        """Some of the images."""
        return Features(self.original[rows], None if self.adapted is None else self.adapted[rows], self.labels[rows])

    def among_images(self, corrected: bool) -> Tensor:
        """The features for similarities between images [N, D]: adapted ones with the overlap ``corrected``, else the original.

        Raises UserError when there are no adapted ones.
        """
        if not corrected:
            return self.original
        if self.adapted is None:
            raise UserError("A corrected method needs adapted features; name the adapter that train_adapter.py wrote with --adapter.")
        return self.adapted


@dataclass(frozen=True, eq=False)
class FewShotData:
    """One draw of a task, on one device.

    ``cache`` are the labelled images: those of a class need not be adjacent, and classes may differ in their number. ``val`` are the
    images on which hyper-parameters are chosen, None where there are none; ``test`` is there for methods that are transductive
    as released, others leave it alone. ``classifier`` [C, D] has a unit text embedding for each class, and zero-shot logits
    are ``logit_scale`` times cosines: 100 as all released code has it. ``dataset`` is the name under which published
    hyper-parameters are looked up (:mod:`fewshot.published`).
    """

    cache: Features
    val: Features | None
    test: Features
    classifier: Tensor
    logit_scale: float = 100.0
    classnames: tuple[str, ...] = ()
    dataset: str = ""

    @property
    def classes(self) -> int:
        """C."""
        return len(self.classifier)

    def zero_shot(self, images: Features) -> Tensor:
        """Zero-shot logits Z [N, C], always of the original features: an adapter breaks their alignment with the texts."""
        return (self.classifier @ images.original.T).mul_(self.logit_scale).T
