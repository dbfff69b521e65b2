"""Embeddings of a task: unit rows in the task's order, the encoder's own outputs, whatever the batches and workers."""

import re
import shutil

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.registry import load_task
from engine import embed
from engine.embed import LoadOptions, embed_classes, embed_images, embed_task, in_background
from engine.runtime import start
from models.loading import load_encoder
from models.selection import select_encoder
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import forget_accelerator

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def selection(small_model):
    return select_encoder(str(small_model), None, {})


@pytest.fixture
def task(image_folder):
    return load_task(f"imagefolder:{image_folder}", "train", val_p=0.1, templates=["a photo of a {c}", "the color {c}, large"])


def options(batch_size=4, **more):
    return LoadOptions(batch_size=batch_size, **{"num_workers": 0, **more})


@torch.no_grad()
def one_by_one(encoder, task):
    """Image embeddings, each image alone."""
    return torch.cat([encoder.encode_image(encoder.preprocess(task.samples.image(index))[None]) for index in range(len(task))]).numpy()


def test_rows_are_the_encoders_outputs_in_the_tasks_order(selection, task):
    embeddings, skipped = embed_task(start("cpu"), selection, task, options())
    np.testing.assert_allclose(embeddings.image_embeddings, one_by_one(selection.encoder, task), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings.image_embeddings, axis=1), 1, atol=1e-6)
    assert embeddings.labels.tolist() == task.labels.tolist()
    assert embeddings.sample_ids == task.sample_ids
    assert len(skipped) == 0


@torch.no_grad()
def test_several_templates_are_averaged_and_normalised(selection, task):
    encoder = selection.encoder
    expected = []
    for name in task.classnames:
        prompts = [f"a photo of a {name}", f"the color {name}, large"]
        mean = torch.stack([encoder.encode_text(encoder.tokenize([prompt]))[0] for prompt in prompts]).mean(dim=0)
        expected.append((mean / mean.norm()).numpy())
    np.testing.assert_allclose(embed_classes(start("cpu"), encoder, task), np.stack(expected), rtol=0, atol=1e-6)


def test_batch_size_and_workers_do_not_matter(selection, task, monkeypatch):
    runtime = start("cpu")
    expected = embed_images(runtime, selection.encoder, task, options(100))
    monkeypatch.setattr(embed, "KEEP_ON_DEVICE", 3)  # so that rows are brought to the CPU on the way, too
    for batch_size, num_workers in ((1, 0), (5, 1), (7, 2)):
        found = embed_images(runtime, selection.encoder, task, options(batch_size, num_workers=num_workers))
        np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=0, atol=1e-6)
        assert found.indices.tolist() == list(range(len(task)))


def test_features_before_the_adapter(small_model, task):
    encoder, plain = load_encoder(str(small_model)), load_encoder(str(small_model))
    apply_tuning(encoder, "adapter", TuningOptions(adapter_ratio=0.9))
    runtime = start("cpu")
    before = embed_images(runtime, encoder, task, options(), adapted=False).embeddings
    np.testing.assert_array_equal(before, embed_images(runtime, plain, task, options()).embeddings)
    after = embed_images(runtime, encoder, task, options()).embeddings
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(after, one_by_one(encoder, task), rtol=0, atol=1e-6)


def test_bf16_gives_float32_unit_rows_near_those_of_fp32(selection, task):
    exact = embed_images(start("cpu"), selection.encoder, task, options()).embeddings
    forget_accelerator()
    embeddings, _ = embed_task(start("cpu", "bf16"), selection, task, options())
    assert embeddings.image_embeddings.dtype == embeddings.text_embeddings.dtype == np.float32
    assert embeddings.metadata["precision"] == "bf16"
    difference = np.abs(embeddings.image_embeddings - exact).max()
    assert 1e-6 < difference < 0.02  # bfloat16 has 8 bits: it was used, and no more than rounding is lost
    np.testing.assert_allclose(np.linalg.norm(embeddings.image_embeddings, axis=1), 1, atol=1e-6)


def test_what_the_file_says_of_itself(selection, task, small_model):
    embeddings, _ = embed_task(start("cpu"), selection, task, options(5))
    said = embeddings.metadata
    expected = {
        **{"model": str(small_model), "tuning": "none", "checkpoint": "", "dataset": task.name, "split": "train", "batch_size": "5"},
        **{"fingerprint": task.fingerprint, "precision": "fp32", "n_skipped": "0", "device": "cpu", "processes": "1"},
    }
    assert {key: said[key] for key in expected} == expected
    assert embeddings.classnames == ["blue", "green", "red"]
    assert embeddings.templates == list(task.templates)
    assert said["checkpoint_sha256"] == selection.sha256


def damaged(image_folder, folder, names):
    shutil.copytree(image_folder, folder)
    for name in names:
        (folder / name).write_bytes(b"no image")
    return load_task(f"imagefolder:{folder}", "test")


def test_unreadable_images_are_left_out_and_the_others_keep_their_labels_and_ids(selection, image_folder, tmp_path):
    task = damaged(image_folder, tmp_path / "copy", ["test/blue/00.jpg", "test/red/03.png"])
    embeddings, skipped = embed_task(start("cpu"), selection, task, options(3, max_skipped=2))
    kept = [index for index in range(12) if index not in (0, 11)]
    assert embeddings.sample_ids == [task.sample_ids[index] for index in kept]
    assert embeddings.labels.tolist() == task.labels[kept].tolist()
    whole = load_task(f"imagefolder:{image_folder}", "test")
    np.testing.assert_allclose(embeddings.image_embeddings, one_by_one(selection.encoder, whole)[kept], rtol=0, atol=1e-6)
    assert skipped.entries == [
        ("test/blue/00.jpg", "not an image of a known format"),
        ("test/red/03.png", "not an image of a known format"),
    ]
    assert embeddings.metadata["n_skipped"] == "2"


def test_more_than_are_allowed_end_it(selection, image_folder, tmp_path):
    task = damaged(image_folder, tmp_path / "copy", ["test/blue/00.jpg", "test/red/03.png"])
    with pytest.raises(UserError, match=r"2 images are unreadable, more than --max-skipped 1 allows; the first is 'test/blue/00\.jpg'"):
        embed_task(start("cpu"), selection, task, options(3, max_skipped=1))


def test_no_readable_image_at_all(selection, image_folder, tmp_path):
    names = [str(path.relative_to(image_folder)) for path in sorted((image_folder / "test").rglob("*.*"))]
    task = damaged(image_folder, tmp_path / "copy", names)
    with pytest.raises(UserError, match=re.escape(f"No image of {task.name} could be read")):
        embed_task(start("cpu"), selection, task, options(3, max_skipped=100))


@pytest.mark.parametrize("weight", ["visual.proj", "text_projection"])
def test_embeddings_that_are_not_finite_are_told_as_a_diverged_model(selection, task, weight):
    selection.encoder.model.get_parameter(weight).data[0, 0] = float("inf")
    with pytest.raises(UserError, match=r"embeddings of .* are not finite; the model's weights have diverged"):
        embed_task(start("cpu"), selection, task, options())


def test_what_runs_in_the_background_is_waited_for_and_its_errors_are_not_lost():
    done = []
    with in_background(lambda: done.append(1)):
        pass
    assert done == [1]
    with pytest.raises(ZeroDivisionError), in_background(lambda: 1 / 0):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 0.03), ("fp16", 0.01)])
def test_on_a_gpu_as_on_the_cpu(selection, task, precision, tolerance):
    expected = one_by_one(selection.encoder, task)
    embeddings, _ = embed_task(start("cuda", precision), selection, task, options(5, num_workers=2))
    np.testing.assert_allclose(embeddings.image_embeddings, expected, rtol=0, atol=tolerance)
    assert embeddings.image_embeddings.dtype == np.float32
    assert embeddings.metadata["device"] == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_precision_on_a_gpu():
    assert start("auto", "auto").precision == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
