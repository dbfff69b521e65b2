"""Native features: the encoder's own outputs in the collection's order; kept on disk, and never the wrong ones."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from datasets.registry import load_task
from datasets.retrieval.collection import Collection
from engine.embed import LoadOptions
from engine.runtime import start
from inversion import features
from inversion.features import embed_texts, native_features
from models.selection import select_encoder
from models.tensors import read_metadata
from tests.helpers import forget_accelerator, write_images, write_model
from tests.models import small

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
LOAD = LoadOptions(batch_size=4, num_workers=0)
TEXTS = ("a photo of a cat", "dog", "a centered satellite photo of an annual crop land, seen from above", "!", "a dog and a cat")


@pytest.fixture
def selection(small_model):
    return select_encoder(str(small_model), None, {})


@pytest.fixture
def images(image_folder):
    return Collection.of_task(load_task(f"imagefolder:{image_folder}", "test"))


def compute(selection, collection, cache=None, precision="fp32", load=LOAD, **more):
    forget_accelerator()  # it keeps the first precision
    return native_features(start("cpu", precision), selection, collection, "colors", "test", load, cache, **more)


@pytest.fixture
def no_towers(monkeypatch):
    """From its call on, nothing may be computed."""

    def refuse(*args, **kwargs):
        raise AssertionError("computed anew")

    def forbid():
        monkeypatch.setattr(features, "embed_images", refuse)
        monkeypatch.setattr(features, "embed_texts", refuse)

    return forbid


@torch.no_grad()
def test_images_are_the_encoders_outputs_in_order(selection, images):
    encoder = selection.encoder
    expected = [encoder.encode_image(encoder.preprocess(images.items.image(index))[None])[0].numpy() for index in range(len(images))]
    found = compute(selection, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("build", [small.clip, small.coca, small.siglip_text])
@pytest.mark.parametrize("per_pass", [2, 256])
@torch.no_grad()
def test_texts_are_the_encoders_outputs_in_order(build, per_pass, monkeypatch):
    monkeypatch.setattr(features, "TEXTS_PER_PASS", per_pass)
    vocabulary, length = (320, 16) if build is small.siglip_text else (small.VOCABULARY, 76 if build is small.coca else 77)
    encoder = small.encoder(build(), vocabulary, length)
    expected = torch.cat([encoder.encode_text(encoder.tokenize([text])) for text in TEXTS])
    np.testing.assert_allclose(embed_texts(start("cpu"), encoder, TEXTS), expected, rtol=0, atol=1e-5)


def test_kept_features_are_not_computed_again(selection, images, tmp_path, no_towers):
    texts = Collection.of_texts(TEXTS, TEXTS)
    expected = [compute(selection, collection, tmp_path) for collection in (images, texts)]
    no_towers()
    for collection, before in zip((images, texts), expected, strict=True):
        np.testing.assert_array_equal(compute(selection, collection, tmp_path), before)


def test_whatever_decides_features_makes_others(selection, images, tmp_path):
    compute(selection, images, tmp_path)
    other_model = select_encoder(str(write_model(tmp_path / "model", seed=1)), None, {})
    compute(other_model, images, tmp_path)
    compute(selection, images, tmp_path, precision="bf16")
    compute(selection, images, tmp_path, load=LoadOptions(batch_size=4, num_workers=0, full_decode=True))
    compute(selection, Collection(images.items, images.labels[::-1].copy()), tmp_path)
    compute(selection, Collection.of_texts(TEXTS, TEXTS), tmp_path)
    compute(selection, Collection.of_texts((*TEXTS[:-1], "another"), TEXTS), tmp_path)
    assert len(list(tmp_path.glob("*/colors_test_*.safetensors"))) == 7


def test_the_same_weights_with_another_activation_make_other_features(small_model, images, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "models/small")
    before = compute(select_encoder(str(folder), None, {}), images, tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert np.abs(compute(select_encoder(str(folder), None, {}), images, tmp_path) - before).max() > 1e-6


def test_a_changed_image_makes_other_features(selection, tmp_path):
    write_images(tmp_path / "data/test", 2)
    before = compute(selection, Collection.of_task(load_task(f"imagefolder:{tmp_path / 'data'}", "test")), tmp_path)
    shutil.copy(tmp_path / "data/test/red/00.jpg", tmp_path / "data/test/blue/00.jpg")
    after = compute(selection, Collection.of_task(load_task(f"imagefolder:{tmp_path / 'data'}", "test")), tmp_path)
    assert np.abs(after - before).max(axis=1).round(6).astype(bool).tolist() == [True] + [False] * 5


def test_a_damaged_or_edited_file_is_made_anew(selection, images, tmp_path):
    expected = compute(selection, images, tmp_path)
    (path,) = tmp_path.glob("*/*.safetensors")
    content, metadata = path.read_bytes(), read_metadata(path)
    path.write_bytes(content[:-5] + b"\0\0\0\0\0")
    np.testing.assert_array_equal(compute(selection, images, tmp_path), expected)
    path.write_bytes(content[: len(content) // 2])
    np.testing.assert_array_equal(compute(selection, images, tmp_path), expected)
    save_file({"features": expected + 1}, path, metadata | {"fingerprint": "another"})
    np.testing.assert_array_equal(compute(selection, images, tmp_path), expected)
    np.testing.assert_array_equal(load_file(path)["features"], expected)


def test_unreadable_images_are_all_named(selection, tmp_path):
    write_images(tmp_path / "data/test", 3)
    for name in ("blue/00.jpg", "red/01.png"):
        (tmp_path / "data/test" / name).write_bytes(b"no image")
    images = Collection.of_task(load_task(f"imagefolder:{tmp_path / 'data'}", "test"))
    with pytest.raises(UserError, match=r"2 of the 9 images of colors cannot be read: .*blue/00.jpg.*red/01.png.*none can be left out"):
        compute(selection, images, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_features_that_are_not_finite_are_refused(selection, tmp_path):
    selection.encoder.model.text_projection.data.fill_(float("nan"))
    with pytest.raises(UserError, match="features of colors are not finite"):
        compute(selection, Collection.of_texts(TEXTS, TEXTS), tmp_path)
