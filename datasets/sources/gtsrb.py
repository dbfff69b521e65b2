"""German Traffic Signs (GTSRB): 43 signs; 26640 images for training, 12630 for testing (Stallkamp et al., 2011).

Layout; the answers may also lie in ``gtsrb/GTSRB``::

    gtsrb/GTSRB/Training/00000/00000_00000.ppm    one folder per class, 00000 to 00042
    gtsrb/GTSRB/Final_Test/Images/00000.ppm
    gtsrb/GT-final_test.csv                       Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId

The training images are those of ``GTSRB-Training_fixed.zip``, as torchvision takes them.
"""

from __future__ import annotations

import csv
from pathlib import Path

from datasets.facts import classnames
from datasets.places import find
from datasets.sources.listed import Listed, damaged, images_in, listed_task, whole_number
from datasets.task import Task, read_lines

TRAINING, TESTING = "GTSRB/Training", "GTSRB/Final_Test/Images"


def gtsrb_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, class by class, sorted by file name, or ``test``, in the order of its answers."""
    root, classes = find(name, data_dir, "gtsrb"), classnames("gtsrb")
    if split == "train":
        folders = [f"{TRAINING}/{label:05d}" for label in range(len(classes))]
        places = [find(name, data_dir, f"gtsrb/{folder}") for folder in folders]
        source = places[0].parent
        images = [(path, label) for label, folder in enumerate(folders) for path in images_in(root, folder)]
    else:
        source = find(name, data_dir, "gtsrb/GT-final_test.csv", "gtsrb/GTSRB/GT-final_test.csv")
        find(name, data_dir, f"gtsrb/{TESTING}")
        images = _answers(name, source)
    return listed_task(name, split, root, source, images, classes)


def _answers(name: str, answers: Path) -> list[Listed]:
    images = []
    for row in csv.DictReader(read_lines(answers), delimiter=";", skipinitialspace=True):
        if not (row.get("Filename") and row.get("ClassId")):
            raise damaged(name, answers, f"the row of '{row.get('Filename')}' lacks its Filename or ClassId")
        images.append((f"{TESTING}/{row['Filename']}", whole_number(name, answers, row["ClassId"])))
    return images
