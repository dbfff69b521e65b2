"""``Shapes-Captions``: drawings of shapes with five captions each, searched by text or by image; needs no files.

Drawings and captions are made as those that the tiny model was pretrained on (:mod:`datasets.sources.captions`), from other
seeds: none of these was in pretraining. A caption tells a part of what its drawing shows, so that it may fit several, and some
captions of different drawings are the same; only those of the same drawing are relevant to each other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.retrieval.captions import Captioned, captioned_task
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.task import RetrievalTask
from datasets.sources.captions import captions_of, random_drawing
from datasets.sources.drawings import Drawing, render

SIZES = {"test": 200, "train": 1000}  # drawings
FIRST_SEEDS = {"test": 2**58, "train": 2**59}  # far from those of pretraining and of the drawn tasks
CAPTIONS = 5  # of each drawing, as COCO has


@dataclass(frozen=True)
class CaptionedDrawings:
    """The drawings of one split."""

    split: str

    def __len__(self) -> int:
        return SIZES[self.split]

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        return render(_drawn(self.split)[index][0])

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return f"Shapes-Captions-{self.split}-{index:04d}"

    def digest(self, index: int) -> bytes:
        """See :class:`~datasets.samples.Samples`."""
        return _drawn(self.split)[index][0].digest()


def drawn_captions_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`."""
    drawings = CaptionedDrawings(split)
    images = [_captioned(index, drawings.sample_id(index), captions) for index, (_, captions) in enumerate(_drawn(split))]
    return captioned_task(name, split, images, lambda: Collection(drawings, np.arange(len(drawings), dtype=np.int64)), options)


def _captioned(index: int, name: str, captions: tuple[str, ...]) -> Captioned:
    return Captioned(index, tuple((f"{name}-{number}", text) for number, text in enumerate(captions)))


@cache
def _drawn(split: str) -> list[tuple[Drawing, tuple[str, ...]]]:
    """Every drawing of a split with its captions: those of the first seeds that give shapes, not letters or digits."""
    made = ((random_drawing(rng, seed), rng) for seed in count(FIRST_SEEDS[split]) for rng in [random.Random(seed)])
    shapes = ((drawing, rng) for drawing, rng in made if not drawing.font)
    return [(drawing, tuple(captions_of(drawing, CAPTIONS, rng))) for drawing, rng in islice(shapes, SIZES[split])]
