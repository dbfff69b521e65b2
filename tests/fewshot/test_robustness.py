"""Which logits count when a classifier is tested on other images; timm's lists are the oracle for ImageNet's subsets."""

import pkgutil

import numpy as np
import pytest

from common.errors import UserError
from datasets.registry import task_names
from datasets.samples import RawSamples
from datasets.sources.imagenet import imagenet_classnames
from datasets.task import Task
from fewshot.robustness import PUBLISHED_NAMES, class_columns, data_set


def task(name, classnames):
    return Task(name, "test", RawSamples(np.zeros((1, 2, 2), np.uint8), ""), np.zeros(1, np.int64), tuple(classnames), ("{c}",))


@pytest.mark.parametrize(("name", "letter"), [("ImageNetRendition", "r"), ("ImageNetAdversarial", "a")])
@pytest.mark.parametrize("source", ["ImageNet", "ImageNet@coop"])
def test_the_two_hundred_classes(source, name, letter):
    """By index, since two names of ImageNet's stand for two classes each, and CoOp's names are others."""
    names = imagenet_classnames() if source == "ImageNet" else [f"name {index}" for index in range(1000)]
    indices = [int(index) for index in pkgutil.get_data("timm.data", f"_info/imagenet_{letter}_indices.txt").decode().split()]
    target = task(name, [imagenet_classnames()[index] for index in indices])
    assert class_columns(task(source, names), target).tolist() == indices


@pytest.mark.parametrize("name", ["ImageNetV2", "ImageNetSketch"])
def test_all_thousand_classes(name):
    source = task("ImageNet@coop", [f"name {index}" for index in range(1000)])
    assert class_columns(source, task(name, imagenet_classnames())).tolist() == list(range(1000))


def test_other_data_sets_by_the_names_of_their_classes():
    source = task("Pets", ["cat", "dog", "dog", "bird"])
    assert class_columns(source, task("Pets+contrast-3", source.classnames)).tolist() == [0, 1, 2, 3]
    assert class_columns(source, task("Birds", ["bird", "cat"])).tolist() == [3, 0]
    with pytest.raises(UserError, match=r"'fish', a class of Seas, is no class of Pets; --transfer takes"):
        class_columns(source, task("Seas", ["cat", "fish"]))
    with pytest.raises(UserError, match=r"'dog', a class of Dogs, is the name of 2 classes of Pets"):
        class_columns(source, task("Dogs", ["dog"]))


def test_published_names_are_data_sets():
    assert {data_set(name) for name in PUBLISHED_NAMES} <= set(task_names())
    assert data_set("Digits") == "Digits"
