"""Images with several captions each, searched by text or by image.

=====  =======  ============================  ==============================  ===================
query  gallery  queries                       gallery                         relevant
=====  =======  ============================  ==============================  ===================
text   text     each image's first caption    all its other captions          of the same image
text   image    all captions                  all images                      the caption's image
image  text     all images                    all captions                    the image's captions
=====  =======  ============================  ==============================  ===================

The first is that of Cross the Gap. Labels are the images' numbers; what has the query's label is relevant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import UserError
from datasets.image_files import ImageFiles
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask, by_label


@dataclass(frozen=True)
class Captioned:
    """An image's number, its captions as (id, text), and its file, where the list of captions names it."""

    number: int
    captions: tuple[tuple[str, str], ...]
    file: str | None = None


def caption_task(
    name: str, split: str, images: Sequence[Captioned], data_dir: Path, folders: Sequence[str], options: Options
) -> RetrievalTask:
    """The task that ``options.query`` and ``options.gallery`` ask for; the files lie below one of ``folders``."""
    return captioned_task(name, split, images, lambda: _pictures(name, images, data_dir, folders), options)


def captioned_task(
    name: str, split: str, images: Sequence[Captioned], pictures: Callable[[], Collection], options: Options
) -> RetrievalTask:
    """The same of images that ``pictures`` gives, labelled by their numbers; it is called where they are asked for."""
    sides = (options.query, options.gallery)
    if sides == ("image", "image"):
        raise UserError(f"{name} has one image per label, so among images nothing is relevant; make the query or the gallery text.")
    if sides == ("text", "text"):
        query = _texts((each.number, each.captions[:1]) for each in images)
        return by_label(name, split, query, _texts((each.number, each.captions[1:]) for each in images))
    texts, found = _texts((each.number, each.captions) for each in images), pictures()
    query, gallery = (texts, found) if sides[0] == "text" else (found, texts)
    return by_label(name, split, query, gallery)


def _texts(chosen: Iterable[tuple[int, Sequence[tuple[str, str]]]]) -> Collection:
    rows = [(key, text, number) for number, captions in chosen for key, text in captions]
    return Collection.of_texts([row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows])


def _pictures(name: str, images: Sequence[Captioned], data_dir: Path, folders: Sequence[str]) -> Collection:
    files = [each.file for each in images if each.file is not None]
    if unnamed := len(images) - len(files):
        raise UserError(f"The captions of {name} do not name the files of {unnamed} of {len(images)} images, so only text can be searched.")
    samples = ImageFiles.of(_root(name, files, data_dir, folders), [file.encode() for file in files])
    return Collection(samples, np.array([each.number for each in images], dtype=np.int64))


def _root(name: str, files: Sequence[str], data_dir: Path, folders: Sequence[str]) -> Path:
    """The first of ``folders`` that holds the folder of the first file."""
    below = PurePosixPath(files[0]).parent if files else PurePosixPath()
    place = find(name, data_dir, *(str(PurePosixPath(folder) / below) for folder in folders))
    return place.parents[len(below.parts) - 1] if below.parts else place
