"""Augmented views of training images, over which the keys of a cache are averaged.

Tip-Adapter and the methods after it embed every shot several times, each time cropped and perhaps mirrored at random, and
take the mean. A view is a sample here like any other: the images of a task and their views are a task of their own, which
whatever embeds tasks can embed.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from datasets.samples import Samples
from datasets.task import Task
from engine.loading import seeded

if TYPE_CHECKING:
    from torchvision.transforms import RandomResizedCrop

SCALE = (0.5, 1.0)  # of the area that a view shows (Tip-Adapter, and the released code of the overlap correction)
VERSION = 1  # raise it whenever a view can have other pixels for the same image, size and seed


class ViewSamples:
    """``views`` of each of ``samples``: RandomResizedCrop(``size``, scale 0.5 to 1, ratio 3/4 to 4/3, bicubic), mirrored half the time.

    View v of sample i is number ``i * views + v``. What it shows depends on (seed, sample id, v) alone: not on the order of the
    samples, the batch or the process that loads it. So a draw of 4 shots and one of 16 share the views of the images that both have.
    """

    def __init__(self, samples: Samples, size: int, views: int, seed: int) -> None:
        from torchvision.transforms import InterpolationMode, RandomResizedCrop

        self.samples, self.views, self.seed = samples, views, seed
        self.crop: RandomResizedCrop = RandomResizedCrop(size, scale=SCALE, interpolation=InterpolationMode.BICUBIC)
        self._decoded: tuple[int, Image.Image] | None = None  # views of one image follow one another: it is decoded once

    def __len__(self) -> int:
        return len(self.samples) * self.views

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        row, view = divmod(index, self.views)
        if self._decoded is None or self._decoded[0] != row:
            self._decoded = row, self.samples.image(row)
        entropy = hashlib.sha256(f"{self.seed} {view} {self.samples.sample_id(row)}".encode()).digest()
        with seeded(int.from_bytes(entropy[:16], "big")):
            cropped: Image.Image = self.crop(self._decoded[1])
            return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else cropped

    def sample_id(self, index: int) -> str:
        """The image's id; the views of one image share it, so that an unreadable file is named as it is called."""
        return self.samples.sample_id(index // self.views)

    def digest(self, index: int) -> bytes:
        """See :class:`~datasets.samples.Samples`."""
        row, view = divmod(index, self.views)
        return hashlib.sha256(b"%d %d %d %d " % (VERSION, self.crop.size[0], self.seed, view) + self.samples.digest(row)).digest()


def views_of(task: Task, size: int, views: int, seed: int) -> Task:
    """The task of ``views`` augmented views of each image of ``task``, image after image; ``size`` is the encoder's, in pixels."""
    return replace(task, samples=ViewSamples(task.samples, size, views, seed), labels=np.repeat(task.labels, views), groups=None)
