"""ImageNet (ILSVRC 2012) and the sets that test what was learnt from it: V2, Sketch, Rendition (R) and Adversarial (A).

Folders below the data folder; those in brackets are read too::

    imagenet/{train,val}/<wnid>/*.JPEG                    [imagenet/images/{train,val}]
    imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg
    sketch/<wnid>/*.JPEG                                  [imagenet-sketch/sketch, imagenet-sketch]
    imagenet-r/<wnid>/*.jpg
    imagenet-a/<wnid>/*.jpg

Labels are positions in the sorted list of the 1000 WordNet ids; V2 has them as names of its folders. R and A show 200 classes
each and are labelled 0..199 in the same order. Labels of ImageNet's own test images were never published: as everywhere in
the field, its ``val`` folder is the test split. Class names are the 1000 that OpenAI wrote for CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from common.errors import UserError
from datasets.facts import facts
from datasets.image_files import ImageFiles
from datasets.own.imagefolder import class_files, subfolders
from datasets.places import find
from datasets.prompts import default_templates
from datasets.task import Task

N_CLASSES = 1000
FOLDERS = {"train": "train", "test": "val"}
TEST_SETS = {
    "ImageNetV2": ("imagenetv2-matched-frequency-format-val",),
    "ImageNetSketch": ("sketch", "imagenet-sketch/sketch", "imagenet-sketch"),
    "ImageNetRendition": ("imagenet-r",),
    "ImageNetAdversarial": ("imagenet-a",),
}
SUBSETS = {"ImageNetRendition": "imagenet_r_indices", "ImageNetAdversarial": "imagenet_a_indices"}


def imagenet_task(name: str, split: str, data_dir: Path) -> Task:
    """``ImageNet`` (``train`` or ``test``) or one of :data:`TEST_SETS` (``test``); no image file is opened.

    Sample ids are ``<class folder>/<file>``, class by class in the order of the labels, files sorted by name.
    """
    root = find(name, data_dir, *_candidates(name, split))
    classes = facts()[SUBSETS[name]] if name in SUBSETS else range(N_CLASSES)
    files = _files(name, root, _class_folders(name, classes))
    return Task(
        name=name,
        split=split,
        samples=ImageFiles.of(root, [file for of_class in files for file in of_class]),
        labels=np.repeat(np.arange(len(files), dtype=np.int64), [len(of_class) for of_class in files]),
        classnames=tuple(imagenet_classnames()[index] for index in classes),
        templates=default_templates(name),
    )


def _candidates(name: str, split: str) -> tuple[str, ...]:
    if name in TEST_SETS:
        if split != "test":
            raise UserError(f"{name} has a test split only; train on ImageNet, which has the same classes.")
        return TEST_SETS[name]
    return f"imagenet/{FOLDERS[split]}", f"imagenet/images/{FOLDERS[split]}"


def _class_folders(name: str, classes: Sequence[int]) -> list[str]:
    """The folder of each class. Those of V2 are numbers: sorted as text, 10 would come before 2."""
    return [str(index) if name == "ImageNetV2" else wordnet_ids()[index] for index in classes]


def _files(name: str, root: Path, folders: Sequence[str]) -> list[list[bytes]]:
    """The files of every class folder; an incomplete copy is an error, since its accuracies would not be those of ``name``."""
    present = set(subfolders(root))
    if missing := [folder for folder in folders if folder not in present]:
        found = f"{len(folders) - len(missing)} of the {len(folders)} class folders of {name} ('{missing[0]}' is missing)"
        raise UserError(f"'{root}' has {found}; each class needs its folder of images.")
    files = [class_files(root, root / folder) for folder in folders]
    if empty := [folder for folder, found in zip(folders, files, strict=True) if not found]:
        raise UserError(f"The class folder '{root / empty[0]}' holds no image; unpack {name} again.")
    return files


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The 1000 classes as WordNet ids, e.g. ``n01440764``, in the order of the labels, which is sorted."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def imagenet_classnames() -> tuple[str, ...]:
    """The 1000 names that OpenAI wrote for zero-shot classification. Two of them stand for two classes each."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)
