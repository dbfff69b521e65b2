"""Which images are learnt from and which choose: nested, disjoint, as published, and never those of the test."""

import argparse
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from common.errors import UserError
from datasets.few_shot import few_shot, few_shot_draws, few_shot_with_validation
from datasets.registry import load_task
from datasets.samples import RawSamples
from datasets.task import Task
from fewshot.protocol import RELEASED_SHOTS, Splits, draw_all, rows_of, validation_shots

SHOTS = [1, 2, 4, 8]


def drawn(labels, split="train", start=0):
    labels = np.asarray(labels, np.int64)
    images = (np.arange(len(labels)) + start).astype(np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    names = tuple(f"class {index}" for index in range(3))
    return Task("Drawn", split, RawSamples(images, split), labels, names, ("a photo of a {c}",))


@pytest.fixture(scope="module")
def splits():
    return Splits.of(*(load_task("Glyphs-Letters", split) for split in ("train", "val", "test")))


def per_class(task, rows):
    return np.bincount(task.labels[rows], minlength=len(task.classnames)).tolist()


def test_min_is_coops_number_and_draws_are_nested(splits):
    draws = draw_all(splits, SHOTS, 1, "independent", "min")
    available = np.bincount(splits.val.labels, minlength=26)
    for shots, draw in zip(SHOTS, draws, strict=True):
        assert (draw.shots, draw.seed, draw.val_split) == (shots, 1, "val")
        assert per_class(splits.train, draw.cache) == [shots] * 26
        assert per_class(splits.val, draw.val) == np.minimum(available, min(shots, 4)).tolist()
        assert draw.cache.tolist() == rows_of(few_shot(splits.train, shots, 1)).tolist()
    for smaller, larger in pairwise(draws):
        assert set(smaller.cache) < set(larger.cache)
        assert set(smaller.val) <= set(larger.val)


def test_a_number_of_validation_shots_and_the_whole_split(splits):
    (two,), (full,) = (draw_all(splits, [1], 2, "independent", asked) for asked in (2, "full"))
    assert max(per_class(splits.val, two.val)) == 2
    assert full.val.tolist() == list(range(len(splits.val)))
    assert two.cache.tolist() == full.cache.tolist()


def test_seeds_draw_other_images(splits):
    one, two = (draw_all(splits, [4], seed, "independent", "min")[0] for seed in (1, 2))
    assert set(one.cache) != set(two.cache)


def test_legacy_with_the_whole_split_is_the_released_stream(splits):
    oracle = few_shot_draws([(splits.train, shots) for shots in RELEASED_SHOTS], 3, order="legacy")
    for asked in ([16, 2], [2]):
        for draw in draw_all(splits, asked, 3, "legacy", "full"):
            assert draw.cache.tolist() == rows_of(oracle[RELEASED_SHOTS.index(draw.shots)]).tolist()
    with pytest.raises(UserError, match=r"none for 3; use independent\."):
        draw_all(splits, [3], 3, "legacy", "full")


def test_legacy_with_min_is_coops_stream():
    train, val = drawn([2, 0, 1] * 6), drawn([1, 0, 2] * 6, "val", 100)
    (draw,) = draw_all(Splits(train, val, val), [5], 7, "legacy", "min")
    oracle = few_shot_with_validation(train, val, 5, 7, order="legacy")
    assert (draw.cache.tolist(), draw.val.tolist()) == tuple(rows_of(task).tolist() for task in oracle)


def test_a_class_without_validation_images_is_left_out():
    train, val = drawn([0, 1, 2] * 4), drawn([2, 0, 2, 0, 0], "val", 100)
    (draw,) = draw_all(Splits(train, val, val), [2], 1, "independent", "min")
    assert per_class(val, draw.val) == [2, 0, 2]


def test_validation_images_that_are_the_tests_are_never_used():
    """As ImageNet's: further training images take their place, and none of them is in the cache."""
    train, test = drawn([0, 1, 2] * 8 + [0]), drawn([0, 1, 2] * 5, "test", 100)
    splits = Splits.of(train, replace(test, split="val"), test)
    assert splits.val is None
    with pytest.raises(ValueError, match="no validation split"):
        splits.split("val")
    for order in ("independent", "legacy"):
        for asked in ("min", "full", 3):
            for draw in draw_all(splits, [1, 4, 8], 1, order, asked):
                assert draw.val_split == "train"
                assert not set(draw.cache) & set(draw.val)
                left = [9 - draw.shots, 8 - draw.shots, 8 - draw.shots]
                assert per_class(train, draw.val) == np.minimum(left, min(draw.shots, 4)).tolist()
    with pytest.raises(UserError, match=r"no training image beside the shots .* fewer --shots\."):
        draw_all(splits, [16], 1, "independent", "min")


def test_another_validation_split_is_kept():
    train, test = drawn([0, 1, 2] * 3), drawn([0, 1, 2] * 5, "test", 100)
    other_pixels = replace(test, samples=RawSamples(test.samples.pixels + 1, "test"))
    assert Splits.of(train, other_pixels, test).val is other_pixels
    assert Splits.of(train, test.subset(np.arange(6)), test).val is not None


def test_too_few_images_name_the_class():
    train = drawn([0, 1, 1, 0])
    with pytest.raises(UserError, match="no train image of the class 'class 2'"):
        draw_all(Splits(train, train, train), [1], 1, "independent", "min")


def test_the_type_of_the_flag():
    assert [validation_shots(text) for text in ("min", "full", "3")] == ["min", "full", 3]
    for text in ("0", "-1", "most", "1.5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="neither min nor full"):
            validation_shots(text)
