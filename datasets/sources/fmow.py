"""Functional Map of the World as WILDS divides it: satellite images of 62 kinds of land use, in six regions of the world.

``FMoW-id`` is tested on images of the years of training (2002-2012), ``FMoW-ood`` on later ones (2016-2017, validated on
2013-2015). Below the data folder, as the package ``wilds`` (version 2.0) has it::

    fmow_v1.1/RELEASE_v1.1.txt
    fmow_v1.1/rgb_metadata.csv           one row per image: split, category, country_code, timestamp, ...
    fmow_v1.1/country_code_mapping.csv   country to region
    fmow_v1.1/images/rgb_img_<row>.png
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from datasets.facts import classnames
from datasets.image_files import ImageFiles
from datasets.places import find
from datasets.prompts import default_templates
from datasets.task import Groups, Task

FOLDER = "fmow_v1.1"
FILES = ("RELEASE_v1.1.txt", "rgb_metadata.csv", "country_code_mapping.csv", "images")
SPLITS = {
    "FMoW-id": {"train": "train", "val": "id_val", "test": "id_test"},
    "FMoW-ood": {"train": "train", "val": "val", "test": "test"},
}


def fmow_task(name: str, split: str, data_dir: Path) -> Task:
    """``FMoW-id`` or ``FMoW-ood``, grouped by region; both have the same training images. No image file is opened."""
    for file in FILES:
        find(name, data_dir, f"{FOLDER}/{file}")
    root = data_dir.expanduser() / FOLDER
    fmow = _read(root)
    rows = np.flatnonzero(fmow.split_array == fmow.split_dict[SPLITS[name][split]])
    if not len(rows):
        raise UserError(f"'{root / 'rgb_metadata.csv'}' lists no image of the {split} split of {name}; unpack the archive again.")
    return Task(
        name=name,
        split=split,
        samples=ImageFiles.of(root, [b"images/rgb_img_%d.png" % number for number in fmow.full_idxs[rows]]),
        labels=fmow.y_array.numpy()[rows],
        classnames=classnames("fmow"),
        templates=default_templates(name),
        groups=Groups("region", tuple(fmow.metadata_map["region"]), _regions(fmow)[rows]),
    )


def _regions(fmow: Any) -> NDArray[np.int64]:
    return fmow.metadata_array[:, fmow.metadata_fields.index("region")].numpy()  # type: ignore[no-any-return]


def _read(root: Path) -> Any:
    """The data set as ``wilds`` reads it from its two tables."""
    module = wilds_module()
    try:
        fmow = module.FMoWDataset(version="1.1", root_dir=str(root.parent), download=False)
    except (OSError, KeyError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"The tables of FMoW in '{root}' are not as WILDS published them ({said}); unpack the archive again.") from error
    torn = fmow.metadata["timestamp"].isna().any()  # wilds takes an image without a time for an early one
    if torn or (root / f"images/rgb_img_{len(fmow.metadata)}.png").exists():
        raise UserError(f"'{root / 'rgb_metadata.csv'}' is incomplete: rows, or the ends of rows, are missing; unpack the archive again.")
    return fmow


def wilds_module() -> ModuleType:
    """The module of ``wilds`` that knows FMoW, without three things that it does to those who import it.

    It asks PyPI for a newer version of itself, in a thread that ends when the network answers; it lifts Pillow's limit on
    the size of images for the whole process; and it cannot read its own table with pandas 2, because a few of the
    timestamps have fractions of a second (p-lambda/wilds, issue 146).
    """
    earlier, limit = sys.modules.get("outdated"), Image.MAX_IMAGE_PIXELS
    sys.modules["outdated"] = None  # type: ignore[assignment]  # importing it fails, and wilds goes on without
    try:
        import pandas as pd
        from wilds.datasets import fmow_dataset
    except ImportError as error:
        raise UserError("FMoW is read by the package wilds; install it with 'pip install wilds'.") from error
    finally:
        del sys.modules["outdated"]
        if earlier is not None:
            sys.modules["outdated"] = earlier
        Image.MAX_IMAGE_PIXELS = limit
    fmow_dataset.pd = SimpleNamespace(read_csv=pd.read_csv, to_datetime=partial(pd.to_datetime, format="ISO8601"))
    return fmow_dataset  # type: ignore[no-any-return]
