"""Methods that train on features, with 8 shots of real and of drawn tasks, on the features of the tiny model."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.few_shot import few_shot
from datasets.registry import load_task
from engine.embed import LoadOptions, embed_classes, embed_images
from engine.runtime import start
from fewshot.data import Features, FewShotData
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from models.selection import select_encoder
from tests.fewshot.drawn_features import correct
from tests.helpers import forget_accelerator


@functools.cache
def data_of(name):
    """8 shots, the validation split, and at most 300 test images."""
    torch.set_num_threads(1)
    train, val, test = (load_task(name, split, data_dir=Path("data")) for split in ("train", "val", "test"))
    forget_accelerator()
    runtime, encoder = start("cpu", "fp32", 0), select_encoder("tiny", None, {}).encoder

    def features(task):
        found = embed_images(runtime, encoder, task, LoadOptions(num_workers=0))
        return Features(torch.from_numpy(found.embeddings), None, torch.from_numpy(task.labels[found.indices]))

    some = test.subset(np.arange(0, len(test), max(1, len(test) // 300)))
    data = FewShotData(*map(features, (few_shot(train, 8, 1), val, some)), torch.from_numpy(embed_classes(runtime, encoder, test)))
    forget_accelerator()
    return data


@pytest.mark.parametrize(
    ("method", "name"),
    [
        *(("tip_adapter_f", name) for name in ("Digits", "Glyphs-Fonts")),
        *(("ape_t", name) for name in ("Digits", "Glyphs-Fonts")),
        *(("clip_adapter", name) for name in ("Digits", "Glyphs-Fonts")),
        ("linear_probe", "Digits"),  # without texts, 8 shots of 26 fonts are not enough
    ],
)
def test_eight_shots_beat_zero_shot(method, name):
    data = data_of(name)
    fitted = METHODS[method].fit(data, FewShotOptions())
    assert correct(fitted.logits(data.test), data.test.labels) > 1.02 * correct(data.zero_shot(data.test), data.test.labels)
