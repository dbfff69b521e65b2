"""The splits of CoOp, ``NAME@coop``: how the few-shot literature divides its data sets into train, val and test.

Nine data sets have a split file ``split_zhou_*.json`` by CoOp's authors and three a ``split_alexey_*.json`` by those of the
intra-modal overlap paper: :data:`LAYOUTS` says where, and :mod:`datasets.sources.split_file` what is in them. Two have none:

- ``FGVCAircraft``: CoOp took the data set's own three parts, so ``coop`` is the same as ``standard``.
- ``ImageNet``: ``train`` is the training folder, and ``val`` and ``test`` are *both* the 50 000 images of the validation folder,
  so whatever is chosen on ``val`` is chosen on the test images. Class names are those of ``imagenet/classnames.txt``, one line
  ``n01440764 tench`` for each folder. CoOp took files in the order of the file system; here they are sorted.

Where a split file was missing, CoOp drew new random splits. Here that is an error: results would not be comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from common.errors import UserError
from common.files import read_json
from datasets.places import find, missing
from datasets.sources.cub import bird
from datasets.sources.listed import damaged, listed_task, rows
from datasets.sources.split_file import is_split, read_split_file
from datasets.sources.stanford_dogs import breed
from datasets.task import Task


def as_words(path: str, name: str) -> str:
    """``Apply Eye Makeup`` of the class name ``Apply_Eye_Makeup``."""
    return name.replace("_", " ")


def bird_of(path: str, name: str) -> str:
    """The folder's bird: the split file's names have their number in front, ``001.Black_footed_Albatross``."""
    return bird(PurePosixPath(path).parent.name)


def breed_of(path: str, name: str) -> str:
    """The folder's breed: in the split file seven names end at their first hyphen, "Shih" for ``n02086240-Shih-Tzu``."""
    return breed(PurePosixPath(path).parent.name)


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set are."""

    folder: str  # below the data folder
    split_file: str  # in the folder
    images: str  # the folder of images in the folder
    prefix: bool = True  # whether the paths of the split file begin in the folder of images, else in the folder around it
    elsewhere: tuple[str, ...] = ()  # other folders that may hold the folder of images
    classname: Callable[[str, str], str] = as_words
    any_name: bool = False  # whether the split file may have another name: copies of these go about under several


LAYOUTS = {
    "Caltech101": Layout("caltech-101", "split_zhou_Caltech101.json", "101_ObjectCategories"),
    "Cars": Layout("stanford_cars", "split_zhou_StanfordCars.json", "cars_train", prefix=False),
    "CUB": Layout(
        "cub",
        "split_alexey_cub.json",
        "images",
        elsewhere=("cub/CUB_200_2011", "CUB_200_2011"),
        classname=bird_of,
        any_name=True,
    ),
    "DTD": Layout("dtd", "split_zhou_DescribableTextures.json", "images", elsewhere=("dtd/dtd",)),
    "EuroSAT": Layout("eurosat", "split_zhou_EuroSAT.json", "2750"),
    "Flowers102": Layout("oxford_flowers", "split_zhou_OxfordFlowers.json", "jpg"),
    "Food101": Layout("food-101", "split_zhou_Food101.json", "images"),
    "OxfordPets": Layout("oxford_pets", "split_zhou_OxfordPets.json", "images"),
    "PlantDoc": Layout("plantdoc", "split_alexey_plantdoc.json", "all_images", any_name=True),
    "StanfordDogs": Layout("stanford_dogs", "split_alexey_stanford_dogs.json", "Images", classname=breed_of, any_name=True),
    "SUN397": Layout("sun397", "split_zhou_SUN397.json", "SUN397"),
    "UCF101": Layout("ucf101", "split_zhou_UCF101.json", "UCF-101-midframes"),
}  # the split files already have CoOp's names: "airplane", "2012 Audi A5 Coupe" with the year in front, "Sea or Lake"


def coop_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test`` of ``name``, in the order of the split file; no image is opened.

    Sample ids are relative to the data set's folder, as under its other conventions.
    """
    if name not in LAYOUTS:
        return {"FGVCAircraft": _aircraft_task, "ImageNet": _imagenet_task}[name](name, split, data_dir)
    layout = LAYOUTS[name]
    source = _split_file(name, data_dir, layout)
    root = find(name, data_dir, *(f"{folder}/{layout.images}" for folder in (layout.folder, *layout.elsewhere))).parent
    images, classnames = read_split_file(name, source, layout.classname)
    prefix = f"{layout.images}/" if layout.prefix else ""
    return listed_task(name, split, root, source, [(prefix + path, label) for path, label in images[split]], classnames)


def _split_file(name: str, data_dir: Path, layout: Layout) -> Path:
    """The published split file; or, for those of several names, the one file of that folder that is a split file."""
    wanted = f"{layout.folder}/{layout.split_file}"
    folder = data_dir.expanduser() / layout.folder
    if not layout.any_name or (folder / layout.split_file).exists():
        return find(name, data_dir, wanted)
    found = [path for path in sorted(folder.glob("*.json")) if is_split(read_json(path))]
    if not found:
        raise missing(name, data_dir, wanted)
    if len(found) > 1:
        raise UserError(f"'{found[0]}' and '{found[1]}' are both split files of {name}; keep one, or call it '{layout.split_file}'.")
    return found[0]


def _aircraft_task(name: str, split: str, data_dir: Path) -> Task:
    from datasets.sources.fgvc_aircraft import fgvc_aircraft_task

    return fgvc_aircraft_task(name, split, data_dir)


def _imagenet_task(name: str, split: str, data_dir: Path) -> Task:
    from datasets.sources.imagenet import imagenet_task, wordnet_ids

    listed = find(name, data_dir, "imagenet/classnames.txt")
    names = dict(rows(name, listed, 2))
    if unnamed := [folder for folder in wordnet_ids() if folder not in names]:
        raise damaged(name, listed, f"it has no line for {unnamed[0]}")
    task = imagenet_task(name, "train" if split == "train" else "test", data_dir)
    return replace(task, split=split, classnames=tuple(names[folder] for folder in wordnet_ids()))
