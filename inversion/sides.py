"""One side of a retrieval, the queries or the gallery, as features: native ones, or those of an inversion.

====== ============= =============================== ==============================================
type   items         features of                     made by
====== ============= =============================== ==============================================
image  images        the image encoder               the encoder
text   texts         the text encoder                the encoder
oti    images        the text encoder                oti.py: pseudo-tokens whose feature is the image's
ovi    texts         the image encoder               ovi.py: pseudo-patches whose feature is the text's
====== ============= =============================== ==============================================

Each side has its own type, so any two go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, unknown_name
from datasets.retrieval.collection import Collection
from datasets.retrieval.task import RetrievalTask
from engine.embed import LoadOptions
from engine.runtime import Runtime
from inversion.features import architecture, native_features
from inversion.items import CLASSES, class_prompts
from inversion.pseudo_tokens import HYPERPARAMETERS, OUTFOLDER, PseudoTokens, command, inversion_folder, load_pseudo_tokens
from models.selection import Selection

Role = Literal["query", "gallery"]
ROLES: tuple[Role, ...] = ("query", "gallery")
ITEMS = {"image": "image", "text": "text", "oti": "image", "ovi": "text"}  # by type: the modality of the items
INVERTED = ("oti", "ovi")


@dataclass(frozen=True)
class Side:
    """What the items of one side are represented by.

    For ``oti`` and ``ovi``: the inversion called ``exp_name`` below ``outfolder``, after ``step`` steps (one of those that it
    recorded; None: the last).
    """

    type: str
    exp_name: str | None = None
    step: int | None = None
    outfolder: Path = OUTFOLDER

    def __post_init__(self) -> None:
        if self.type not in ITEMS:
            raise unknown_name("type of a query or gallery", self.type, ITEMS)
        if self.inverted and self.exp_name is None:
            raise UserError(f"A side of the type {self.type} is an inversion; say which one by its experiment name.")

    @property
    def inverted(self) -> bool:
        """Whether its features are learnt."""
        return self.type in INVERTED

    @property
    def items(self) -> str:
        """``image`` or ``text``: what its items are."""
        return ITEMS[self.type]


class Features:
    """The features of collections by one encoder. What was read or computed once is remembered."""

    def __init__(self, runtime: Runtime, selection: Selection, load: LoadOptions, cache: Path | None = None) -> None:
        self.runtime, self.selection, self.load, self.cache = runtime, selection, load, cache
        self._native: dict[tuple[str, bool], NDArray[np.float32]] = {}
        self._inverted: dict[Path, PseudoTokens] = {}

    def native(self, collection: Collection, name: str, split: str, projected: bool = True) -> NDArray[np.float32]:
        """See :func:`inversion.features.native_features`."""
        key = (collection.fingerprint, projected)
        if key not in self._native:
            of = (self.runtime, self.selection, collection, name, split, self.load, self.cache)
            self._native[key] = native_features(*of, projected=projected)
        return self._native[key]

    def inverted(self, side: Side, task: RetrievalTask, role: Role) -> NDArray[np.float32]:
        """Unit features float32 [N, D] of the inversion that ``side`` names, in the order of the items of ``task``.

        An empty text is not inverted: its row is zero, like to nothing. Raises :class:`UserError` where there are no features of
        these items as they are now, by this encoder, at this step.
        """
        pseudo, collection = self.pseudo_tokens(side, task, role), collection_of(task, role)
        learnt = of_step(pseudo, side.step)
        if _of_classes(collection):  # in the sentence that was chosen for the inversion, not in the data set's own
            return learnt[pseudo.rows_for(class_prompts(collection.ids, pseudo.hyperparameters["template"]))]
        filled, places = _with_content(collection)
        found = np.zeros((len(collection), learnt.shape[1]), dtype=np.float32)
        found[places] = learnt[pseudo.rows_for(filled)]
        return found

    def pseudo_tokens(self, side: Side, task: RetrievalTask, role: Role) -> PseudoTokens:
        """The inversion that ``side`` names, by this encoder. Where the queries are the gallery, that of either is of both."""
        parts: list[str] = sorted(ROLES, key=lambda each: each != role) if task.leave_one_out else [role]
        folder = folder_of(side, self.selection, task.name, task.split, *([CLASSES] if _of_classes(collection_of(task, role)) else parts))
        if folder not in self._inverted:
            self._inverted[folder] = load_inversion(folder, self.selection)
        return self._inverted[folder]


def side_features(features: Features, side: Side, task: RetrievalTask, role: Role) -> NDArray[np.float32]:
    """Unit features float32 [N, D] of the queries or the gallery of ``task`` as ``side`` says."""
    check_items(side, task, role)
    if side.inverted:
        return features.inverted(side, task, role)
    return features.native(collection_of(task, role), task.name, task.split)


def collection_of(task: RetrievalTask, role: Role) -> Collection:
    """The queries or the gallery."""
    return task.query if role == "query" else task.gallery


def check_items(side: Side, task: RetrievalTask, role: Role) -> None:
    """A :class:`UserError` when ``side`` is for the other kind of items."""
    if (found := collection_of(task, role).modality) != side.items:
        raise UserError(f"'{side.type}' represents {side.items}s, but the {role} of {task.name} is of {found}s.")


def _of_classes(collection: Collection) -> bool:
    """Whether these are texts of classes, whose ids are the classes' names: a classification data set has no others."""
    return collection.modality == "text" and bool(collection.classnames)


def _with_content(collection: Collection) -> tuple[Collection, NDArray[np.int64]]:
    """The items that are inverted, all but empty texts, and their places in ``collection``."""
    places = np.arange(len(collection))
    if collection.modality == "image":
        return collection, places
    places = places[[bool(text.strip()) for text in collection.texts]]
    texts, ids = collection.texts, collection.ids
    return Collection.of_texts([texts[place] for place in places], [ids[place] for place in places]), places


def of_step(pseudo: PseudoTokens, step: int | None) -> NDArray[np.float32]:
    """The features [N, D] after ``step`` steps, one of those that were recorded; None: the last."""
    if step is not None and step not in pseudo.steps:
        recorded = ", ".join(map(str, pseudo.steps))
        raise UserError(f"Step {step} was not recorded, only {recorded}; choose one of them, or invert anew with --snapshots {step}.")
    return pseudo.features[:, -1 if step is None else pseudo.steps.index(step)]


def folder_of(side: Side, selection: Selection, dataset: str, split: str, *parts: str) -> Path:
    """Where the inversion of one of ``parts`` (``query``, ``gallery``, ``classes``) of a data set lies: the first that is there.

    Where none is, a :class:`UserError` says how the encoder of ``selection`` makes it.
    """
    assert side.exp_name is not None
    folders = [inversion_folder(side.outfolder, side.type, side.exp_name, dataset, split, part) for part in parts]
    for folder in folders:
        if (folder / HYPERPARAMETERS).is_file():
            return folder
    made = {"kind": side.type, "dataset": dataset, "split": split, "side": parts[0], "exp_name": side.exp_name}
    made |= {"model": selection.model, "checkpoint": selection.checkpoint}
    raise UserError(f"There are no pseudo-tokens in '{folders[0]}'; make them with '{command(made, side.outfolder)}'.")


def load_inversion(folder: Path, selection: Selection) -> PseudoTokens:
    """The pseudo-tokens in ``folder``, which mean nothing to another encoder than the one they were made with."""
    pseudo = load_pseudo_tokens(folder)
    check_encoder(folder, pseudo.hyperparameters, selection)
    return pseudo


def check_encoder(folder: Path, made: Mapping[str, Any], selection: Selection) -> None:
    """A :class:`UserError` when the pseudo-tokens in ``folder``, of these hyper-parameters, were ``made`` with another encoder."""
    own = {
        "checkpoint_sha256": (selection.sha256, "weights are not those of"),
        "architecture": (architecture(selection.encoder), "architecture (activation, heads) is not that of"),  # with the same weights
        "preprocess": (selection.encoder.preprocess.description, "preprocessing of images is not that of"),  # None of texts
    }
    for key, (value, differs) in own.items():
        if made.get(key) not in (None, value):
            raise UserError(
                f"The pseudo-tokens in '{folder}' were made with '{made.get('checkpoint') or made['model']}', whose {differs} "
                f"'{selection.checkpoint or selection.model}'; use the same encoder, or another experiment name."
            )
