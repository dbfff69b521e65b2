"""Stanford Cars: 196 models of cars; 8144 images for training, 8041 for testing (Krause et al., 2013).

Layout, with the annotations as MATLAB files::

    stanford_cars/cars_train/00001.jpg
    stanford_cars/cars_test/00001.jpg
    stanford_cars/devkit/cars_train_annos.mat
    stanford_cars/cars_test_annos_withlabels.mat

Both have a struct array ``annotations`` with the file's name ``fname`` and its ``class`` from 1 to 196. The class names are
those of the merging benchmarks, which spell a few other than ``devkit/cars_meta.mat`` but keep its order.
"""

from __future__ import annotations

from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import damaged, listed_task
from datasets.sources.mat_files import read_mat
from datasets.task import Task

ANNOTATIONS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


def cars_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of the annotations."""
    listed = find(name, data_dir, f"stanford_cars/{ANNOTATIONS[split]}")
    root = find(name, data_dir, f"stanford_cars/cars_{split}").parent
    (annotations,) = read_mat(name, listed, "annotations")
    if not {"fname", "class"} <= set(annotations.dtype.names or ()):
        raise damaged(name, listed, "its annotations lack 'fname' or 'class'")
    images = [(f"cars_{split}/{annotation['fname']}", int(annotation["class"])) for annotation in annotations]
    return listed_task(name, split, root, listed, images, classnames("stanford_cars"), first=1)
