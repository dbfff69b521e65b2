"""FGVC Aircraft: 100 variants of aircraft; 3334 images for training, 3333 each for validation and testing (Maji et al., 2013).

Layout, that of the archive's folder ``data``::

    fgvc_aircraft/images/1025794.jpg
    fgvc_aircraft/variants.txt                             one class name per line
    fgvc_aircraft/images_variant_{train,val,test}.txt      lines 1025794 707-320; a variant may hold blanks
"""

from __future__ import annotations

from pathlib import Path

from datasets.places import find
from datasets.sources.listed import labelled, listed_task, rows
from datasets.task import Task, read_lines


def fgvc_aircraft_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train``, ``val`` or ``test``, in the order of its list; class names are the variants as they are written."""
    listed = find(name, data_dir, f"fgvc_aircraft/images_variant_{split}.txt")
    root = find(name, data_dir, "fgvc_aircraft/images").parent
    variants = read_lines(find(name, data_dir, "fgvc_aircraft/variants.txt"))
    images = [(f"images/{image}.jpg", variant) for image, variant in rows(name, listed, 2)]
    return listed_task(name, split, root, listed, labelled(name, listed, images, variants), variants)
