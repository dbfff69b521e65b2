"""``CUB``: Caltech-UCSD Birds-200-2011, images of 200 kinds of birds, as leave-one-out retrieval.

Files are those of the classification data set (:mod:`datasets.sources.cub`), and so are the splits ``train`` (5994 images) and
``test`` (5794); the published one is ``all`` (11,788), in the order of ``images.txt``. The division of metric learning into the first
and the last hundred classes is another one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.image_files import ImageFiles
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask, by_label
from datasets.sources import cub
from datasets.sources.listed import rows


def cub_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    images = _all(name, data_dir) if split == "all" else Collection.of_task(cub.cub_task(name, split, data_dir))
    return by_label(name, split, images, images)


def _all(name: str, data_dir: Path) -> Collection:
    """Both splits, in the order of the list."""
    parts = [cub.cub_task(name, split, data_dir) for split in cub.TRAINING]
    labels = {image: label for part in parts for image, label in zip(part.sample_ids, part.labels.tolist(), strict=True)}
    listed = find(name, data_dir, "CUB_200_2011/images.txt")
    paths = [f"images/{path}" for _, path in rows(name, listed, 2)]
    samples = ImageFiles.of(listed.parent, [path.encode() for path in paths])
    return Collection(samples, np.array([labels[path] for path in paths], dtype=np.int64), parts[0].classnames)
