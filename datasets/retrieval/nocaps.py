"""``nocaps``: the validation images of nocaps, ten captions each, many of things that COCO's captions never name.

Layout, as released::

    nocaps/nocaps_val_4500_captions.json
        {"images": [{"id": 0, "file_name": "0013ea2087020901.jpg", ...}, ...],
         "annotations": [{"image_id": 0, "id": 0, "caption": "A baby is standing ..."}, ...]}
    nocaps/images/*.jpg    for images, from Open Images; also in nocaps/val/

4500 images in the order of the file, captions in theirs. Caption ids are ``id``, labels are the images' ``id``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from datasets.places import find
from datasets.retrieval.captions import Captioned, caption_task
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask

FOLDERS = ("nocaps/images", "nocaps/val")


def nocaps_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    path = find(name, data_dir, "nocaps/nocaps_val_4500_captions.json")
    try:
        images = _captioned(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is not nocaps's list of captions: {type(error).__name__} {error}.") from error
    return caption_task(name, split, images, data_dir, FOLDERS, options)


def _captioned(listed: dict[str, Any]) -> list[Captioned]:
    captions: dict[int, list[tuple[str, str]]] = {int(image["id"]): [] for image in listed["images"]}
    for annotation in listed["annotations"]:
        captions[int(annotation["image_id"])].append((str(annotation["id"]), annotation["caption"]))
    return [Captioned(int(image["id"]), tuple(captions[int(image["id"])]), image.get("file_name")) for image in listed["images"]]
