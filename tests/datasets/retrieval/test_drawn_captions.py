"""Shapes-Captions: drawn, captioned, and none of it pretrained on."""

import numpy as np
import pytest

from common.errors import UserError
from datasets.retrieval.drawn_captions import CAPTIONS, FIRST_SEEDS, CaptionedDrawings, _drawn
from datasets.retrieval.options import Options
from datasets.retrieval.table import load_retrieval
from datasets.sources.captions import SEEDS
from datasets.sources.drawings import COLORS


def load(split="test", **options):
    return load_retrieval("Shapes-Captions", split, options=Options(**options))


def test_an_images_first_caption_searches_the_others():
    task = load()
    assert (task.query.modality, task.gallery.modality, task.leave_one_out) == ("text", "text", False)
    assert (len(task.query), len(task.gallery)) == (200, 800)
    assert (task.protocols[""].counts == CAPTIONS - 1).all()
    assert task.query.ids[3] == "Shapes-Captions-test-0003-0" and task.gallery.ids[12] == "Shapes-Captions-test-0003-1"


def test_texts_and_images_search_each_other():
    by_text, by_image = load(query="text", gallery="image"), load(query="image", gallery="text")
    assert (len(by_text.query), len(by_text.gallery), len(by_image.query), len(by_image.gallery)) == (1000, 200, 200, 1000)
    assert (by_text.protocols[""].counts == 1).all() and (by_image.protocols[""].counts == CAPTIONS).all()
    assert by_image.query.items.image(0).size == (48, 48)
    with pytest.raises(UserError, match="one image per label"):
        load(query="image", gallery="image")


def test_a_caption_says_nothing_that_its_drawing_does_not_show():
    """Of the colours, which are words of their own; whether all attributes fit is tested where captions are made."""
    for drawing, captions in _drawn("test"):
        told = {word.strip(".,") for text in captions for word in text.split()} & COLORS.keys()
        assert told <= {drawing.color, drawing.background}


def test_it_is_the_same_every_time_and_new_to_the_model():
    assert load().fingerprint == load().fingerprint != load("train").fingerprint
    seeds = {split: {drawing.seed for drawing, _ in _drawn(split)} for split in FIRST_SEEDS}
    assert not seeds["test"] & seeds["train"]
    assert not any(seed in SEEDS for split in seeds.values() for seed in split)
    assert not any(drawing.font for drawing, _ in _drawn("test"))
    pixels = {np.asarray(CaptionedDrawings("test").image(index)).tobytes() for index in range(200)}
    assert len(pixels) == 200
