"""Label embeddings of other encoders and of files: those of the task's classes, in their order, or a sentence."""

import numpy as np
import pytest

from common.errors import UserError
from datasets.registry import load_task
from engine import label_features
from engine.embed import embed_classes
from engine.embeddings import Embeddings, describe, save_embeddings
from engine.label_features import text_features
from engine.runtime import start
from models.loading import load_encoder

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
CLASSES = ("blue", "green", "red")


@pytest.fixture
def task(image_folder):
    return load_task(f"imagefolder:{image_folder}", "train")


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((3, 5))


def file_of(path, texts, classnames):
    images = np.ones((2, texts.shape[1]), np.float32)
    facts = {"model": "clip", "dataset": "Else", "split": "train", "templates": ["{c}"], "classnames": classnames}
    return save_embeddings(path, Embeddings(images, texts.astype(np.float32), np.zeros(2, np.int64), [], describe(**facts)))


def test_encoders_and_files_in_the_order_given(task, features, small_model, tmp_path):
    np.save(tmp_path / "a.npy", features)
    b = file_of(tmp_path / "b", features[:, ::-1], CLASSES)
    found = text_features(start("cpu"), task, [str(small_model)], [tmp_path / "a.npy", b])
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], embed_classes(start("cpu"), load_encoder(str(small_model)), task))
    np.testing.assert_array_equal(found[1], features)
    np.testing.assert_array_equal(found[2], features[:, ::-1].astype(np.float32))


def test_none_by_default(task):
    assert text_features(start("cpu"), task, [], []) == ()


def test_text_embeddings_of_other_classes_are_refused(task, features, tmp_path):
    """As many classes, in another order: row by row they would be taken for those of the task."""
    path = file_of(tmp_path / "b", features, ("blue", "red", "green"))
    with pytest.raises(UserError, match=r"has the class 'red' where .* has 'green'"):
        text_features(start("cpu"), task, [], [path])


def test_text_embeddings_of_unknown_classes_are_taken(task, features, tmp_path):
    (found,) = text_features(start("cpu"), task, [], [file_of(tmp_path / "b", features, ())])
    np.testing.assert_array_equal(found, features.astype(np.float32))


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (3,), (3, 0), (3, 5, 1)])
def test_another_shape(task, tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    with pytest.raises(UserError, match=r"'.*a.npy' has label features of shape .*; .* has 3 classes"):
        text_features(start("cpu"), task, [], [tmp_path / "a.npy"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite(task, features, tmp_path, value):
    features[1, 2] = value
    np.save(tmp_path / "a.npy", features)
    with pytest.raises(UserError, match=r"a.npy' does not hold finite"):
        text_features(start("cpu"), task, [], [tmp_path / "a.npy"])


def test_whole_numbers_and_complex_ones_are_no_embeddings(task, tmp_path):
    for kind in (np.int64, np.complex128):
        np.save(tmp_path / "a.npy", np.ones((3, 5), kind))
        with pytest.raises(UserError, match=r"a.npy' does not hold finite floating-point"):
            text_features(start("cpu"), task, [], [tmp_path / "a.npy"])


def test_files_that_are_no_array(task, features, tmp_path):
    """Empty, cut, an archive, absent, a folder."""
    path = tmp_path / "a.npy"
    np.save(path, features)
    whole = path.read_bytes()
    np.savez(tmp_path / "archive.npz", features)
    for content in (b"", whole[:100], whole[:-8], b"0.1,0.2\n", (tmp_path / "archive.npz").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.npy'"):
            text_features(start("cpu"), task, [], [path])
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        text_features(start("cpu"), task, [], [path])
    path.mkdir()
    with pytest.raises(UserError, match=r"a.npy' is not a readable"):
        text_features(start("cpu"), task, [], [path])


def test_files_are_read_before_an_encoder_is_loaded(task, tmp_path, monkeypatch):
    monkeypatch.setattr(label_features, "select_model", lambda name: pytest.fail("an encoder was loaded"))
    with pytest.raises(UserError, match="No such file"):
        text_features(start("cpu"), task, ["tiny"], [tmp_path / "a.npy"])
