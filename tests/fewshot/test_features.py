"""Features with and without adapters: what they are, that they are kept, and what makes them anew."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from engine.embed import LoadOptions, embed_images
from engine.runtime import start
from fewshot import features as module
from fewshot.augmented import views_of
from fewshot.features import ADAPTED, ORIGINAL, Towers
from models.parallel_adapter import without_adapters
from models.selection import select_encoder
from tests.fewshot.adapters import write_adapter
from tests.helpers import forget_accelerator, write_images

LOAD = LoadOptions(batch_size=5, num_workers=0)


@pytest.fixture(scope="module")
def runtime():
    yield start("cpu", "fp32")
    forget_accelerator()


@pytest.fixture(scope="module")
def adapter(small_model, tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter.safetensors", small_model)


@pytest.fixture(scope="module")
def task(image_folder):
    return load_task(f"imagefolder:{image_folder}", "test")


@pytest.fixture
def towers(runtime, small_model, adapter, tmp_path):
    """The small model with an adapter, and a place to keep features in."""
    return Towers(runtime, select_encoder(str(small_model), adapter, {}), LOAD, tmp_path / "kept")


@pytest.fixture
def passes(monkeypatch):
    """The kinds of features that each pass over images made."""
    made, original = [], module.raw_features
    monkeypatch.setattr(module, "raw_features", lambda *args: made.append(args[-1]) or original(*args))
    return made


def plain(runtime, small_model, tmp_path):
    return Towers(runtime, select_encoder(str(small_model), None, {}), LOAD, tmp_path / "kept")


def test_both_kinds_are_those_of_two_passes(runtime, towers, task, small_model):
    found, indices = towers.features(task)
    with without_adapters(towers.encoder):
        original = embed_images(runtime, towers.encoder, task, LOAD).embeddings
    adapted = embed_images(runtime, towers.encoder, task, LOAD).embeddings
    np.testing.assert_allclose(found.original, original, atol=1e-6)
    np.testing.assert_allclose(found.adapted, adapted, atol=1e-6)
    assert np.abs(original - adapted).max() > 0.01
    assert found.labels.tolist() == task.labels.tolist()
    assert indices.tolist() == list(range(len(task)))
    stock = embed_images(runtime, select_encoder(str(small_model), None, {}).encoder, task, LOAD).embeddings
    np.testing.assert_array_equal(original, stock)


def test_views_are_averaged_before_they_are_normalised(runtime, towers, task):
    found, _ = towers.features(task, views=3, seed=4)
    raw = module.raw_features(runtime, towers.encoder, views_of(task, 32, 3, 4), LOAD, (ADAPTED, ORIGINAL))[0]
    for kind, rows in ((ORIGINAL, found.original), (ADAPTED, found.adapted)):
        means = torch.stack([raw[kind][3 * image : 3 * image + 3].mean(dim=0) for image in range(len(task))])
        torch.testing.assert_close(rows, means / means.norm(dim=1, keepdim=True))


def test_a_draw_gives_an_image_the_features_that_a_larger_one_gives_it(towers, task):
    rows = np.array([7, 2, 5])
    large, small = towers.features(task, views=2, seed=1)[0], towers.features(task.subset(rows), views=2, seed=1)[0]
    torch.testing.assert_close(small.original, large.original[torch.from_numpy(rows)], atol=1e-6, rtol=0)
    torch.testing.assert_close(small.adapted, large.adapted[torch.from_numpy(rows)], atol=1e-6, rtol=0)


def test_what_is_kept_is_not_made_again(runtime, towers, task, passes):
    first = towers.features(task)[0]
    again = replace(towers, load=replace(LOAD, batch_size=3)).features(task)[0]
    assert passes == [[ADAPTED, ORIGINAL]]
    torch.testing.assert_close(again.original, first.original, atol=0, rtol=0)
    torch.testing.assert_close(again.adapted, first.adapted, atol=0, rtol=0)


def test_another_adapter_leaves_the_original_features_alone(runtime, towers, task, small_model, passes, tmp_path):
    """And a run without any finds them."""
    first = towers.features(task)[0]
    other = write_adapter(tmp_path / "other.safetensors", small_model, seed=1)
    second = replace(towers, selection=select_encoder(None, other, {})).features(task)[0]
    without = plain(runtime, small_model, tmp_path).features(task)[0]
    assert passes == [[ADAPTED, ORIGINAL], [ADAPTED]]
    assert (second.original == first.original).all()
    assert (without.original == first.original).all()
    assert without.adapted is None
    assert (second.adapted - first.adapted).abs().max() > 0.01


@pytest.mark.parametrize(("views", "seed"), [(2, 1), (3, 1), (2, 2)])
def test_other_views_are_made(towers, task, passes, views, seed):
    towers.features(task, 2, 3)
    towers.features(task, views, seed)
    assert len(passes) == 2


def test_what_decides(towers, task):
    """A name for each of these; without views the seed does not count."""
    assert towers.identity(ORIGINAL, task, 0, 1) == towers.identity(ORIGINAL, task, 0, 2)
    changed = [
        towers.identity(ORIGINAL, task),
        towers.identity(ADAPTED, task),
        towers.identity(ORIGINAL, task.subset(np.arange(3))),
        towers.identity(ORIGINAL, task, 1),
        replace(towers, load=replace(LOAD, full_decode=True)).identity(ORIGINAL, task),
        replace(towers, runtime=replace(towers.runtime, precision="bf16")).identity(ORIGINAL, task),
    ]
    assert len({str(identity) for identity in changed}) == len(changed)


def test_a_damaged_file_is_made_anew(towers, task, passes, tmp_path):
    first = towers.features(task)[0]
    for path in (tmp_path / "kept").glob("*_original-*"):
        path.write_bytes(path.read_bytes()[:-8])
    torch.testing.assert_close(towers.features(task)[0].original, first.original, atol=1e-6, rtol=0)
    assert passes == [[ADAPTED, ORIGINAL], [ORIGINAL]]


def test_unreadable_images_are_left_out_counted_and_refused(runtime, small_model, tmp_path):
    write_images(tmp_path / "images" / "test", 3)
    write_images(tmp_path / "images" / "train", 3)
    (tmp_path / "images/test/green/01.png").write_bytes(b"damaged")
    task = load_task(f"imagefolder:{tmp_path / 'images'}", "test")
    strict = plain(runtime, small_model, tmp_path)
    patient = replace(strict, load=replace(LOAD, max_skipped=1))
    with pytest.raises(UserError, match="1 image is unreadable"):
        replace(strict, cache=None).features(task, 3)
    for views in (0, 2):
        for _ in range(2):  # made, then read
            found, indices = patient.features(task, views)
            assert indices.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
            assert found.labels.tolist() == task.labels[indices].tolist()
            assert [name for name, _ in patient.skipped.entries] == ["test/green/01.png"]
        with pytest.raises(
            UserError, match=r"1 image is unreadable, more than --max-skipped 0 allows; .*'test/green/01.png' \((?!unreadable)"
        ):
            plain(runtime, small_model, tmp_path).features(task, views)


def test_no_readable_image_and_numbers_that_are_none(runtime, small_model, tmp_path, task):
    write_images(tmp_path / "images" / "test", 1)
    write_images(tmp_path / "images" / "train", 1)
    for path in (tmp_path / "images/test").rglob("*.jpg"):
        path.write_bytes(b"")
    nothing = load_task(f"imagefolder:{tmp_path / 'images'}", "test")
    with pytest.raises(UserError, match=r"No image of .* could be read"):
        replace(plain(runtime, small_model, tmp_path), load=replace(LOAD, max_skipped=9)).features(nothing)
    broken = plain(runtime, small_model, tmp_path)
    with torch.no_grad():
        broken.encoder.image_tower.proj.fill_(torch.nan)
    with pytest.raises(UserError, match="are not finite; the weights of the model or of the adapter have diverged"):
        broken.features(task)
    assert not list((tmp_path / "kept").glob("*"))


def test_grey_and_large_images_share_a_pass(runtime, small_model, tmp_path):
    """Views of files of any size are of the encoder's."""
    for split in ("train", "test"):
        (tmp_path / "own" / split / "one").mkdir(parents=True)
        (tmp_path / "own" / split / "two").mkdir(parents=True)
        Image.new("L", (700, 300), 90).save(tmp_path / "own" / split / "one" / "a.jpg")
        Image.new("RGB", (20, 50), (9, 200, 9)).save(tmp_path / "own" / split / "two" / "b.png")
    task = load_task(f"imagefolder:{tmp_path / 'own'}", "test")
    found, _ = plain(runtime, small_model, tmp_path).features(task, views=2)
    assert found.original.shape == (2, 32)
    torch.testing.assert_close(found.original.norm(dim=1), torch.ones(2))
