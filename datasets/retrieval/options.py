"""What can be asked of a retrieval task besides its name and split."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Each data set knows some of these; what it does not know must be left as it is here.

    ``query`` and ``gallery`` are ``image`` or ``text``; None is the data set's own modality. ``gallery_split`` is where a
    classification data set's gallery comes from: the queries' own split means leave-one-out. ``crop`` cuts the queries to
    their bounding boxes, ``distractors`` adds the million of revisitop1m to the gallery, and ``summaries`` is a file of texts
    that take the place of the gallery's (:mod:`datasets.retrieval.summaries`).
    """

    query: str | None = None
    gallery: str | None = None
    gallery_split: str | None = None
    crop: bool = False
    distractors: bool = False
    summaries: Path | None = None

    def given(self) -> list[str]:
        """The names of the options that are not as they are here."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]
