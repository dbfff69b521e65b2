"""``Flickr30k``: 31,783 photographs with five captions each, in Karpathy's split.

Layout::

    Flickr30K/results.csv                      image_name| comment_number| comment
                                               1000092795.jpg| 0| Two young guys with shaggy hair look at ...
    Flickr30K/karpathy_{train,val,test}.txt    the name of one image in each line, with or without .jpg
    Flickr30K/flickr30k_images/*.jpg           for images; also in Flickr30K/images/

The released ``results.csv`` lacks the second ``|`` in one row, ``2199200615.jpg| 4   A dog runs across the grass .``; any such row
is read as if it were there. Splits: ``train`` (29,000 images), ``val`` (1014, the published one), ``test`` (1000), ``all`` (31,783, in
the order of results.csv). A caption's id is ``1000092795.jpg#0``; labels are the images' positions in results.csv.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import UserError
from datasets.places import find
from datasets.retrieval.captions import Captioned, caption_task
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask
from datasets.task import read_lines

HEADER = "image_name|comment_number|comment"
FOLDERS = ("Flickr30K/flickr30k_images", "Flickr30K/images")
ROW = re.compile(r"(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)(?:\s*\|\s*|\s+)(?P<comment>.+)")

Captions = dict[str, list[tuple[str, str]]]  # (id, text) of each caption, by image


def flickr30k_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    path = find(name, data_dir, "Flickr30K/results.csv")
    captions = read_captions(path)
    numbers = {image: number for number, image in enumerate(captions)}
    chosen = list(captions) if split == "all" else _listed(find(name, data_dir, f"Flickr30K/karpathy_{split}.txt"))
    if unknown := [image for image in chosen if image not in captions]:
        raise UserError(f"'{path}' has no captions of {len(unknown)} of {len(chosen)} images of the split {split}, e.g. {unknown[0]}.")
    images = [Captioned(numbers[image], tuple(captions[image]), image) for image in chosen]
    return caption_task(name, split, images, data_dir, FOLDERS, options)


def read_captions(path: Path) -> Captions:
    """The captions of every image, in the order of the file."""
    header, *lines = read_lines(path) or [""]
    if header.replace(" ", "") != HEADER:
        raise UserError(f"'{path}' does not begin with 'image_name| comment_number| comment'; it is not the list of Flickr30k.")
    captions: Captions = {}
    for number, line in enumerate(lines, start=2):
        row = ROW.fullmatch(line)
        if row is None:
            raise UserError(f"'{path}' is damaged: line {number} is no 'image_name| comment_number| comment'; get the file anew.")
        captions.setdefault(row["image"], []).append((f"{row['image']}#{row['number']}", row["comment"]))
    return captions


def _listed(path: Path) -> list[str]:
    return [line if line.endswith(".jpg") else f"{line}.jpg" for line in read_lines(path)]
