"""``CUB``: Caltech-UCSD Birds-200-2011, images of 200 kinds of birds, as leave-one-out retrieval.

Files are those of the classification data set (:mod:`datasets.sources.cub`), and so are the splits ``train`` (5994 images) and
``test`` (5794); the published one is ``all`` (11,788), in the order of ``images.txt``. The division of metric learning into the first
and the last hundred classes is another one.
"""

from __future__ import annotations

from pathlib import Path

from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask, by_label
from datasets.sources import cub


def cub_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    images = Collection.of_task(cub.cub_task(name, split, data_dir))
    return by_label(name, split, images, images)
