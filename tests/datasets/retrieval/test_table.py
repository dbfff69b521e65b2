"""Retrieval tasks by name, their splits and options, and classification data sets as retrieval."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import UserError
from datasets.registry import SOURCES, load_task
from datasets.retrieval.options import Options
from datasets.retrieval.table import RETRIEVAL, load_retrieval, retrieval_names
from datasets.sources.digits import digits_task
from tests.datasets.sources.listed_copies import COPIES
from tests.helpers import write_images


def test_every_name_is_there_once():
    names = retrieval_names()
    assert len(set(names)) == len(names) and set(names) == RETRIEVAL.keys() | SOURCES.keys()
    assert names[: len(RETRIEVAL)] == list(RETRIEVAL)


@pytest.mark.parametrize(
    ("name", "split", "sentence"),
    [
        ("SOPP", None, "Unknown retrieval task 'SOPP'; did you mean 'SOP'"),
        ("SOP", "val", "Unknown split of SOP 'val'"),
        ("Digits", "tset", "Unknown split of Digits 'tset'; did you mean 'test'"),
        ("imagefolder:", None, "names nothing"),
        ("imagfolder:x", None, "did you mean 'imagefolder:x'"),
        ("CUB@paper", None, "CUB has no 'paper' splits"),
    ],
)
def test_unknown_names_and_splits(name, split, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load_retrieval(name, split, tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("CUB", Options(crop=True), "--crop is not for CUB; it is for ROxford5k, RParis6k."),
        ("COCO", Options(distractors=True), "--distractors is not for COCO"),
        ("Digits", Options(summaries="x"), "--summaries is not for Digits; it is for IMDB, 20Newsgroups, Nano"),
        ("SOP", Options(gallery_split="train"), "--gallery-split is not for SOP; it is for classification data sets"),
        ("SOP", Options(query="text"), "The query of SOP cannot be of the type 'text', only image"),
        ("IMDB", Options(gallery="image"), "The gallery of IMDB cannot be of the type 'image', only text"),
        ("COCO", Options(query="sound"), "The query of COCO cannot be of the type 'sound', only text or image"),
        ("Digits", Options(query="text", gallery="text"), "Digits has one text per class"),
        ("Digits", Options(gallery_split="tset"), "Unknown split 'tset'"),
    ],
)
def test_options_that_a_task_does_not_have(name, options, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load_retrieval(name, data_dir=tmp_path, options=options)


def test_the_published_modality_may_be_asked_for(tmp_path):
    COPIES["CUB"].write(tmp_path)
    asked = load_retrieval("CUB", data_dir=tmp_path, options=Options("image", "image"))
    assert asked.fingerprint == load_retrieval("CUB", data_dir=tmp_path).fingerprint


# --- classification data sets --------------------------------------------------------------------------------------


def test_test_images_find_training_images():
    task = load_retrieval("Digits")
    assert (task.name, task.split, task.leave_one_out) == ("Digits", "test", False)
    query, gallery = load_task("Digits", "test"), digits_task("train")
    assert task.query.fingerprint == query.fingerprint
    assert task.gallery.fingerprint == gallery.fingerprint and len(task.gallery) == 1200  # none is drawn for validation
    same = query.labels[:, None] == task.gallery.labels[None]
    assert (task.protocols[""].counts == same.sum(1)).all()


def test_the_queries_own_split_is_leave_one_out():
    task = load_retrieval("Digits", options=Options(gallery_split="test"))
    assert task.leave_one_out and task.gallery is task.query and len(task.query) == 597
    sizes = np.bincount(task.query.labels)
    assert (task.protocols[""].counts == sizes[task.query.labels] - 1).all()


@pytest.mark.parametrize("sides", [("val", "train"), ("train", "val")])
def test_validation_images_do_not_find_themselves(sides):
    task = load_retrieval("Digits", sides[0], options=Options(gallery_split=sides[1]))
    assert not set(task.query.ids) & set(task.gallery.ids)
    assert {len(task.query), len(task.gallery)} == {120, 1080}


def test_training_images_among_themselves():
    task = load_retrieval("Digits", "train")
    assert task.leave_one_out and len(task.gallery) == 1200


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_class_names_as_texts(side):
    options = Options(**{side: "text"}, gallery_split="test")
    task = load_retrieval("Digits", options=options)
    texts, images = (task.query, task.gallery) if side == "query" else (task.gallery, task.query)
    assert not task.leave_one_out
    assert texts.texts[3] == "a photo of the number 3." and texts.ids == list("0123456789")
    assert images.modality == "image" and len(images) == 597
    rows, columns = task.protocols[""].relevant(0, len(task.query))
    assert (task.query.labels[rows] == task.gallery.labels[columns]).all() and len(rows) == 597


def test_split_conventions_and_own_data(tmp_path):
    COPIES["CUB"].write(tmp_path)
    task = load_retrieval("CUB@standard", data_dir=tmp_path, options=Options(gallery_split="test"))
    assert task.name == "CUB" and task.split == "test" and len(task.query) == 2
    write_images(tmp_path / "own/train", 2)
    write_images(tmp_path / "own/val", 1, seed=2)
    write_images(tmp_path / "own/test", 1, seed=1)
    own = load_retrieval(f"imagefolder:{tmp_path / 'own'}")
    assert own.query.classnames == ("blue", "green", "red") and own.protocols[""].counts.tolist() == [2, 2, 2]
    assert own.query.ids == ["test/blue/00.jpg", "test/green/00.jpg", "test/red/00.jpg"]


def test_a_corrupted_data_set_is_corrupted_on_both_sides():
    pytest.importorskip("datasets.corruptions")
    task, plain = load_retrieval("Digits+contrast-5"), load_retrieval("Digits")
    assert task.name == "Digits+contrast-5" and task.gallery.ids == plain.gallery.ids
    for corrupted, clean in ((task.query, plain.query), (task.gallery, plain.gallery)):
        assert np.ptp(corrupted.items.image(0)) < np.ptp(clean.items.image(0))


def test_classes_that_differ_between_the_splits(tmp_path, monkeypatch):
    def other(name, split, data_dir):
        task = digits_task(split)
        return task if split == "test" else replace(task, classnames=task.classnames[::-1])

    monkeypatch.setattr("datasets.sources.digits.digits_source", other)
    with pytest.raises(UserError, match="The classes of Digits differ between test and train"):
        load_retrieval("Digits")
