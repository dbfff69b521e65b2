"""``COCO``: the captions of COCO 2014 in Karpathy's split.

Layout::

    COCO2014/dataset_coco_light.json    or dataset_coco.json, Karpathy's own
        {"images": [{"split": "restval", "imgid": 0, "sentences": [{"raw": "A man ...", "sentid": 770337}, ...],
                     "filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg"}, ...]}
    COCO2014/{train2014,val2014}/*.jpg  for images; also in COCO2014/images/

The light file lacks what is not needed for text, the files' names among it. Splits: ``train`` (113,287 images, those of ``restval``
included), ``val`` (5000) and ``test`` (5000, the published one). Caption ids are ``sentid``, labels are ``imgid``.
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

FILES = ("COCO2014/dataset_coco_light.json", "COCO2014/dataset_coco.json")
FOLDERS = ("COCO2014", "COCO2014/images")


def coco_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`. The order is that of the file."""
    with_files = "image" in (options.query, options.gallery)
    path = find(name, data_dir, *(FILES[::-1] if with_files else FILES))
    parts = ("train", "restval") if split == "train" else (split,)
    try:
        images = [_captioned(image) for image in read_json(path)["images"] if image["split"] in parts]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is not Karpathy's list of captions: {type(error).__name__} {error}.") from error
    return caption_task(name, split, images, data_dir, FOLDERS, options)


def _captioned(image: dict[str, Any]) -> Captioned:
    captions = tuple((str(sentence["sentid"]), sentence["raw"]) for sentence in image["sentences"])
    file = f"{image['filepath']}/{image['filename']}" if "filename" in image and "filepath" in image else None
    return Captioned(int(image["imgid"]), captions, file)
