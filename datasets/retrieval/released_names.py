"""The names of data sets and splits in the released code of Cross the Gap (arXiv 2502.04263), and what they are called here.

Its eleven data sets of CoOp are those with the split ``coop`` here: every test image is a query, the training images are the
gallery. A split of the other data sets names a part and a side, ``test_query`` or ``val_gallery``, or a side alone; here the split
is the part, and ``query`` and ``gallery`` are the sides of a task. Nothing is imported, so that ``--help`` stays fast.

=====================  ====================  ============================
released               here                  published queries, gallery
=====================  ====================  ============================
``cub2011``            ``CUB``               all, all: leave-one-out
``sop``                ``SOP``               test, test: leave-one-out
``roxford5k``          ``ROxford5k``         test
``rparis6k``           ``RParis6k``          test
``caltech101``, ...    ``Caltech101@coop``   test, train
``coco_text``          ``COCO``              test
``flickr30k_text``     ``Flickr30k``         val
``nocaps_text``        ``nocaps``            val
``nanonq``, ...        ``NanoNQ``            test
``imdb_text``          ``IMDB``              all
``newsgroup_text``     ``20Newsgroups``      test
=====================  ====================  ============================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import UserError

Side = Literal["query", "gallery"]
SIDES: tuple[Side, ...] = ("query", "gallery")
_NANO = ("ClimateFEVER", "DBPedia", "FEVER", "NFCorpus", "NQ", "SCIDOCS", "SciFact")
_COOP = {
    "caltech101": "Caltech101",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "fgvc_aircraft": "FGVCAircraft",
    "food101": "Food101",
    "imagenet": "ImageNet",
    "oxford_flowers": "Flowers102",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "Cars",
    "sun397": "SUN397",
    "ucf101": "UCF101",
}


@dataclass(frozen=True)
class PaperTask:
    """A data set as the paper used it: its name here, what its items are, and where queries and gallery come from.

    ``gallery_split`` is None where a split has a gallery of its own, which for ``CUB`` and ``SOP`` is the queries themselves.
    """

    name: str
    modality: Literal["image", "text"]
    split: str
    gallery_split: str | None = None


RELEASED: dict[str, PaperTask] = {
    "cub2011": PaperTask("CUB", "image", "all"),
    "sop": PaperTask("SOP", "image", "test"),
    "roxford5k": PaperTask("ROxford5k", "image", "test"),
    "rparis6k": PaperTask("RParis6k", "image", "test"),
    **{released: PaperTask(f"{name}@coop", "image", "test", "train") for released, name in _COOP.items()},
    "coco_text": PaperTask("COCO", "text", "test"),
    "flickr30k_text": PaperTask("Flickr30k", "text", "val"),
    "nocaps_text": PaperTask("nocaps", "text", "val"),
    **{f"nano{name}".lower(): PaperTask(f"Nano{name}", "text", "test") for name in _NANO},
    "imdb_text": PaperTask("IMDB", "text", "all"),
    "newsgroup_text": PaperTask("20Newsgroups", "text", "test"),
}


def paper_task(name: str) -> PaperTask | None:
    """The data set that the released code calls ``name``; None for any other name. No name is both released and one of ours."""
    return RELEASED.get(name)


def dataset_name(name: str) -> str:
    """The name here of the data set ``name``, released or ours. What is neither stays as it is too, for the registry to refuse."""
    task = paper_task(name)
    return task.name if task else name


def split_and_side(split: str, side: Side | None = None) -> tuple[str | None, Side]:
    """The split here, and the side, that ``split`` of the released code means: ``val_gallery`` is ("val", "gallery").

    ``query`` and ``gallery`` alone leave the split to the data set (None), as ``""`` does; a split of ours passes through, on
    ``side``, by default the queries. Raises :class:`UserError` when ``split`` names another side than ``side``::

        split_and_side("test_query")            # ("test", "query")
        split_and_side("gallery")               # (None, "gallery")
        split_and_side("test", side="gallery")  # ("test", "gallery")
    """
    part, _, last = split.rpartition("_")
    named: Side | None = next((each for each in SIDES if each == last), None)
    if named is not None and side is not None and named != side:
        hint = f"write '{part}' alone" if part else "leave it out"
        raise UserError(f"The split '{split}' is that of the {named}, but the {side} is asked for; {hint}.")
    if named is not None:
        return part or None, named
    return split or None, side or "query"
