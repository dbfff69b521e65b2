"""A pixel cache holds what decoding and resizing give, is made once per content, and never stale."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from engine import pixel_cache
from engine.embed import LoadOptions, embed_images
from engine.pixel_cache import with_cached_pixels
from engine.runtime import start
from models.loading import load_encoder
from models.tensors import read_safetensors
from tests.helpers import run_script

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / "test" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "images" / "test" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def encoder(small_model):
    return load_encoder(str(small_model))


def options(tmp_path, **more):
    return LoadOptions(batch_size=5, pixel_cache=tmp_path / "pixels", **{"num_workers": 0, **more})


def caches(tmp_path):
    return sorted((tmp_path / "pixels").glob("*.npy"))


@pytest.mark.parametrize("workers", [0, 2])
def test_embeddings_are_the_same_with_and_without(encoder, folder, tmp_path, workers):
    task, runtime = load_task(f"imagefolder:{folder}", "test"), start("cpu")
    plain = embed_images(runtime, encoder, task, LoadOptions(5, 0))
    for _ in ("made", "used"):
        cached = embed_images(runtime, encoder, task, options(tmp_path, num_workers=workers))
        np.testing.assert_array_equal(cached.embeddings, plain.embeddings)
        assert cached.indices.tolist() == list(range(12))
    assert len(caches(tmp_path)) == 1


def test_the_second_pass_reads_no_image(encoder, folder, tmp_path, monkeypatch):
    task, runtime = load_task(f"imagefolder:{folder}", "test"), start("cpu")
    with_cached_pixels(runtime, encoder.preprocess.geometry, task, options(tmp_path))
    monkeypatch.setattr("datasets.samples.decode", lambda *_: pytest.fail("decoded"))
    assert len(embed_images(runtime, encoder, task, options(tmp_path)).embeddings) == 12


def test_a_changed_image_makes_another_cache(encoder, folder, tmp_path):
    runtime, geometry = start("cpu"), encoder.preprocess.geometry
    with_cached_pixels(runtime, geometry, load_task(f"imagefolder:{folder}", "test"), options(tmp_path))
    Image.new("RGB", (50, 70), "red").save(folder / "test" / "a" / "0.png")
    changed = load_task(f"imagefolder:{folder}", "test")
    cached = with_cached_pixels(runtime, geometry, changed, options(tmp_path))
    assert len(caches(tmp_path)) == 2
    assert torch.equal(torch.from_numpy(cached.samples.pixels_at(np.array([0])))[0], geometry(changed.samples.image(0)))
    with_cached_pixels(runtime, geometry, changed, options(tmp_path, full_decode=True))
    assert len(caches(tmp_path)) == 3


def test_unreadable_images_stay_unreadable(encoder, folder, tmp_path):
    (folder / "test" / "b" / "2.png").write_bytes(b"no image")
    task, runtime = load_task(f"imagefolder:{folder}", "test"), start("cpu")
    for _ in ("made", "used"):
        embedded = embed_images(runtime, encoder, task, options(tmp_path, max_skipped=1))
        assert embedded.indices.tolist() == [index for index in range(12) if index != 8]
        assert embedded.skipped.entries == [("test/b/2.png", "not an image of a known format")]
    with pytest.raises(UserError, match=r"1 image is unreadable.*test/b/2.png"):
        embed_images(runtime, encoder, task, options(tmp_path))


def test_a_killed_attempt_leaves_nothing_that_counts(encoder, folder, tmp_path, monkeypatch):
    task, runtime = load_task(f"imagefolder:{folder}", "test"), start("cpu")
    with monkeypatch.context() as patched:
        patched.setattr(pixel_cache, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_images(runtime, encoder, task, options(tmp_path))
    assert len(embed_images(runtime, encoder, task, options(tmp_path)).embeddings) == 12
    assert [path.suffix for path in sorted((tmp_path / "pixels").iterdir())] == [".json", ".npy"]


def test_no_space_is_told_before_the_work(encoder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"The pixel cache needs 0\.0 GB, and .* has 0\.0 GB free; name another --pixel-cache"):
        embed_images(start("cpu"), encoder, load_task(f"imagefolder:{folder}", "test"), options(tmp_path))


def test_a_subset_takes_its_pixels_from_the_cache_of_the_whole(encoder, folder, tmp_path):
    task, geometry = load_task(f"imagefolder:{folder}", "test"), encoder.preprocess.geometry
    cached = with_cached_pixels(start("cpu"), geometry, task, options(tmp_path))
    some = pickle.loads(pickle.dumps(cached.samples)), np.array([7, 3])
    assert np.array_equal(some[0].pixels_at(some[1]), np.stack([geometry(task.samples.image(index)).numpy() for index in (7, 3)]))


def test_training_with_a_cache_is_training_without(small_model, folder, tmp_path):
    (folder / "test").rename(folder / "train")
    flags = ["--dataset", f"imagefolder:{folder}", "--model-name", "bias", "--base-model", small_model, "--nepochs", 2, "--bs", 4]
    flags += ["--num-workers", 0, "--val-p", 0.2, "--device", "cpu"]
    run_script("train", *flags, "--model-dir", tmp_path / "plain").succeeded()
    run_script("train", *flags, "--model-dir", tmp_path / "cached", "--pixel-cache", tmp_path / "pixels").succeeded()
    (plain,), (cached,) = (list((tmp_path / name).glob("*_last.safetensors")) for name in ("plain", "cached"))
    assert plain.name == cached.name
    expected, found = read_safetensors(plain)[0], read_safetensors(cached)[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert len(caches(tmp_path)) == 2
