"""Sides: the right features for each type, only those of these items, this encoder and this step."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from common.errors import UserError
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.table import load_retrieval
from engine.embed import LoadOptions
from engine.runtime import start
from inversion import sides
from inversion.items import class_prompts
from inversion.sides import Features, Side, side_features
from models.selection import select_encoder
from tests.helpers import write_images, write_model
from tests.inversion.fake_tokens import write_inversion

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
LOAD = LoadOptions(batch_size=4, num_workers=0)


@pytest.fixture
def selection(small_model):
    return select_encoder(str(small_model), None, {})


@pytest.fixture
def features(selection):
    return Features(start("cpu"), selection, LOAD)


def colors(folder, **options):
    return load_retrieval(f"imagefolder:{folder}", options=Options(**options))


def inversion(task, role, selection, outfolder, kind="oti", exp_name="exp", **more):
    place = {"dataset": task.name, "split": task.split, "side": role}
    return write_inversion(outfolder, kind, exp_name, sides.collection_of(task, role), selection, **place, **more)


def test_native_sides_are_the_encoders(features, image_folder):
    task = colors(image_folder, query="text")
    texts, images = side_features(features, Side("text"), task, "query"), side_features(features, Side("image"), task, "gallery")
    encoder = features.selection.encoder
    np.testing.assert_allclose(texts, encoder.encode_text(encoder.tokenize(task.query.texts)).numpy(), atol=1e-6)
    expected = [encoder.encode_image(encoder.preprocess(task.gallery.items.image(index))[None])[0].numpy() for index in range(len(images))]
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize(("step", "row"), [(None, 1), (5, 1), (2, 0)])
def test_inverted_sides_are_in_the_order_of_the_items(features, image_folder, tmp_path, step, row):
    task = colors(image_folder)
    expected = inversion(task, "query", features.selection, tmp_path)
    found = side_features(features, Side("oti", "exp", step, tmp_path), task, "query")
    np.testing.assert_array_equal(found, expected[:, row])


def test_texts_of_classes_are_those_of_the_inversion(features, image_folder, tmp_path):
    task = colors(image_folder, gallery="text")
    prompts = class_prompts(task.gallery.classnames, "the colour {}")  # ovi.py --use-class-names --template-sentence "the colour {}"
    place = {"dataset": task.name, "split": task.split, "side": "classes"}
    expected = write_inversion(tmp_path, "ovi", "exp", prompts, features.selection, **place, template="the colour {}")
    np.testing.assert_array_equal(side_features(features, Side("ovi", "exp", outfolder=tmp_path), task, "gallery"), expected[:, -1])


def test_missing_classes_name_the_command(features, image_folder, tmp_path):
    with pytest.raises(
        UserError, match=r"no pseudo-tokens in .*make them with 'python ovi.py .* --use-class-names --exp-name exp --model-name .*small"
    ):
        side_features(features, Side("ovi", "exp", outfolder=tmp_path), colors(image_folder, gallery="text"), "gallery")


def test_an_empty_text_is_like_to_nothing(features, image_folder, tmp_path):
    task = colors(image_folder, gallery="text")
    written = Collection.of_texts(task.gallery.texts[1:], task.gallery.ids[1:])
    place = {"dataset": task.name, "split": task.split, "side": "gallery"}
    expected = write_inversion(tmp_path, "ovi", "exp", written, features.selection, **place)
    emptied = Collection.of_texts([" ", *task.gallery.texts[1:]], task.gallery.ids, task.gallery.labels)
    found = side_features(features, Side("ovi", "exp", outfolder=tmp_path), replace(task, gallery=emptied), "gallery")
    np.testing.assert_array_equal(found, [np.zeros(32), *expected[:, -1]])


def test_queries_that_are_the_gallery_are_inverted_once(features, image_folder, tmp_path):
    task = colors(image_folder, gallery_split="test")
    assert task.leave_one_out
    expected = inversion(task, "query", features.selection, tmp_path)
    np.testing.assert_array_equal(side_features(features, Side("oti", "exp", outfolder=tmp_path), task, "gallery"), expected[:, -1])


def test_what_was_read_or_computed_is_remembered(features, image_folder, tmp_path, monkeypatch):
    task = colors(image_folder)
    inversion(task, "query", features.selection, tmp_path)
    oti = Side("oti", "exp", outfolder=tmp_path)
    before = [side_features(features, Side("image"), task, "gallery"), side_features(features, oti, task, "query")]
    monkeypatch.setattr(sides, "native_features", None)
    monkeypatch.setattr(sides, "load_pseudo_tokens", None)
    assert side_features(features, Side("image"), task, "gallery") is before[0]
    np.testing.assert_array_equal(side_features(features, oti, task, "query"), before[1])


def test_an_unknown_type():
    with pytest.raises(UserError, match="Unknown type of a query or gallery 'images'; did you mean 'image'"):
        Side("images")


def test_an_inversion_needs_a_name():
    with pytest.raises(UserError, match="type oti is an inversion; say which one"):
        Side("oti")


@pytest.mark.parametrize(("kind", "role", "found"), [("text", "query", "images"), ("ovi", "gallery", "images")])
def test_a_type_for_other_items(features, image_folder, kind, role, found):
    with pytest.raises(UserError, match=f"'{kind}' represents texts, but the {role} of imagefolder:.* is of {found}"):
        side_features(features, Side(kind, "exp"), colors(image_folder), role)


def test_missing_pseudo_tokens_name_the_command(features, image_folder, tmp_path):
    task = colors(image_folder)
    command = f"python oti.py --dataset-name {task.name} --split test --side query --exp-name exp"
    command += f" --model-name {features.selection.model} --outfolder {tmp_path}"  # what would be made else is of another encoder
    with pytest.raises(UserError, match=f"no pseudo-tokens in '{tmp_path}.*make them with '{command}'"):
        side_features(features, Side("oti", "exp", outfolder=tmp_path), task, "query")


def test_pseudo_tokens_of_other_weights(features, image_folder, tmp_path):
    task = colors(image_folder)
    other = select_encoder(str(write_model(tmp_path / "other", seed=1)), None, {})
    inversion(task, "query", other, tmp_path / "tokens")
    with pytest.raises(UserError, match=r"were made with '.*other', whose weights are not those of '.*small'"):
        side_features(features, Side("oti", "exp", outfolder=tmp_path / "tokens"), task, "query")


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ({"architecture": "ViT-B-32"}, "whose architecture .* is not that of"),
        ({"preprocess": "[]"}, "whose preprocessing of images is not that of"),
    ],
)
def test_pseudo_tokens_of_the_same_weights_used_in_another_way(features, image_folder, tmp_path, recorded, words):
    """CLIP's weights run with GELU and with QuickGELU."""
    task = colors(image_folder)
    inversion(task, "query", features.selection, tmp_path, **recorded)
    with pytest.raises(UserError, match=words):
        features.inverted(Side("oti", "exp", outfolder=tmp_path), task, "query")


def test_a_step_that_was_not_recorded(features, image_folder, tmp_path):
    task = colors(image_folder)
    inversion(task, "query", features.selection, tmp_path)
    with pytest.raises(UserError, match="Step 3 was not recorded, only 2, 5; choose one of them, or invert anew with --snapshots 3"):
        side_features(features, Side("oti", "exp", 3, tmp_path), task, "query")


def test_pseudo_tokens_of_an_image_that_changed(features, tmp_path):
    write_images(tmp_path / "data/train", 2)
    write_images(tmp_path / "data/test", 2, seed=1)
    inversion(colors(tmp_path / "data"), "query", features.selection, tmp_path)
    shutil.copy(tmp_path / "data/test/red/00.jpg", tmp_path / "data/test/blue/00.jpg")
    with pytest.raises(UserError, match="1 of 6 items have other content"):
        side_features(features, Side("oti", "exp", outfolder=tmp_path), colors(tmp_path / "data"), "query")
