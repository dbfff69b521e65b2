"""Accuracies against scikit-learn, the same for any batch size and number of workers."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from common.errors import UserError
from datasets.registry import load_task
from datasets.task import Groups
from engine.embed import LoadOptions
from engine.evaluate import accuracies_of, check_probe, evaluate
from engine.runtime import start
from models.loading import load_encoder
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import write_images, write_model

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def encoder(small_model):
    return load_encoder(str(small_model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Classes of unequal size, one of them without an image."""
    root = tmp_path_factory.mktemp("unequal")
    write_images(root / "train", 1)
    write_images(root / "test", 3, colors=["red"])
    write_images(root / "test", 9, colors=["blue"])
    return root


def task_of(folder):
    return load_task(f"imagefolder:{folder}", "test")


def options(batch_size=4, **more):
    return LoadOptions(batch_size=batch_size, **{"num_workers": 0, **more})


@torch.no_grad()
def predicted_by(encoder, task):
    """The nearest class of each image, one image at a time."""
    texts = encoder.encode_text(encoder.tokenize([prompts[0] for prompts in task.prompts()]))
    images = [encoder.encode_image(encoder.preprocess(task.samples.image(index))[None])[0] for index in range(len(task))]
    return np.array([int((texts @ image).argmax()) for image in images])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (5, 1), (64, 2)])
def test_accuracies_are_scikit_learns_whatever_the_batches(encoder, folder, batch_size, num_workers):
    task = task_of(folder)
    predicted = predicted_by(encoder, task)
    assert 0 < (predicted == task.labels).mean() < 1  # else the test would say little
    result = evaluate(start("cpu"), encoder, task, options(batch_size, num_workers=num_workers))
    assert result.n_images == 12
    assert result.top1 == pytest.approx(accuracy_score(task.labels, predicted), abs=1e-12)
    assert result.mean_per_class == pytest.approx(balanced_accuracy_score(task.labels, predicted), abs=1e-12)
    assert result.top1 != result.mean_per_class


def test_counting_from_predictions_is_the_same():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 7, (2, 200))
    n, top1, mean_per_class = accuracies_of(predicted, labels, 9)
    assert (n, top1) == (200, accuracy_score(labels, predicted))
    assert mean_per_class == pytest.approx(balanced_accuracy_score(labels, predicted))


@pytest.fixture
def grouped(folder):
    """The same task with its 12 images in four groups, one of them empty; alphabetical order is not theirs."""
    task = task_of(folder)
    of_image = np.random.default_rng(0).permutation([0] * 5 + [1] * 6 + [3])
    return replace(task, groups=Groups("place", ("sea", "land", "moon", "air"), of_image))


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (5, 2), (64, 0)])
def test_accuracies_of_groups_by_counting(encoder, grouped, batch_size, num_workers):
    result = evaluate(start("cpu"), encoder, grouped, options(batch_size, num_workers=num_workers))
    right = predicted_by(encoder, grouped) == grouped.labels
    expected = {name: right[grouped.groups.labels == number].mean() for number, name in ((0, "sea"), (1, "land"), (3, "air"))}
    assert result.groups == pytest.approx(expected, abs=1e-12)
    assert result.group_images == {"sea": 5, "land": 6, "air": 1}
    assert result.worst_group == pytest.approx(min(expected.values()))
    assert len(set(expected.values())) > 1
    without = evaluate(start("cpu"), encoder, replace(grouped, groups=None), options())
    assert (without.top1, without.mean_per_class) == (result.top1, result.mean_per_class)
    assert (without.groups, without.group_images, without.worst_group) == ({}, {}, None)


def test_groups_follow_a_subset(encoder, grouped):
    """Images are called by their place in the subset, and groups must be too."""
    rows = np.array([9, 1, 4, 11, 2])
    result = evaluate(start("cpu"), encoder, grouped.subset(rows), options(2))
    right, groups = (predicted_by(encoder, grouped) == grouped.labels)[rows], grouped.groups.labels[rows]
    expected = {name: right[groups == number].mean() for number, name in enumerate(grouped.groups.names) if number in groups}
    assert result.groups == pytest.approx(expected)


def test_unreadable_images_are_in_no_group(encoder, folder, grouped, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "test/blue/03.png").write_bytes(b"no image")
    result = evaluate(start("cpu"), encoder, replace(task_of(copy), groups=grouped.groups), options(max_skipped=1))
    lost = grouped.groups.names[grouped.groups.labels[3]]
    assert sum(result.group_images.values()) == 11
    assert {"sea": 5, "land": 6, "air": 1}[lost] - result.group_images.get(lost, 0) == 1


def test_unreadable_images_are_counted_and_limited(encoder, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "test/blue/03.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 image is unreadable, more than --max-skipped 0 allows; .*test/blue/03\.png"):
        evaluate(start("cpu"), encoder, task_of(copy), options())
    result = evaluate(start("cpu"), encoder, task_of(copy), options(max_skipped=1))
    assert result.n_images == 11
    assert [name for name, _ in result.skipped.entries] == ["test/blue/03.png"]


def test_no_readable_image_is_no_accuracy(encoder, tmp_path):
    write_images(tmp_path / "test", 1)
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="No image could be read"):
        evaluate(start("cpu"), encoder, task_of(tmp_path), options(max_skipped=9))


def test_a_model_whose_outputs_are_not_finite_has_no_accuracy(encoder, folder):
    """argmax would answer all the same, and give the share of the first class."""
    encoder.model.visual.proj.data[0, 0] = float("nan")
    task = task_of(folder)
    with pytest.raises(UserError, match=re.escape(f"outputs for 12 images of {task.name} are not finite")):
        evaluate(start("cpu"), encoder, task, options())


def test_a_probe_is_tested_on_its_own_classes_only(encoder, folder):
    task = task_of(folder)
    check_probe(encoder, task)  # an encoder without a probe may be tested on anything
    apply_tuning(encoder, "probe", TuningOptions(), classnames=task.classnames)
    check_probe(encoder, task)
    with pytest.raises(UserError, match=r"trained on 3 classes, not those of Digits"):
        evaluate(start("cpu"), encoder, load_task("Digits", "test"), options())


def test_no_gradient_is_left_behind(encoder, folder):
    apply_tuning(encoder, "full", TuningOptions())
    evaluate(start("cpu"), encoder, task_of(folder), options())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(folder, tmp_path, precision):
    """At random weights classes lie close together; what is close to a tie may fall on the other side."""
    encoder, task = load_encoder(str(write_model(tmp_path / "m"))), task_of(folder)
    runtime = start("cuda", precision)
    result = evaluate(runtime, encoder, task, options())
    agreed = (predicted_by(encoder.cpu(), task) == task.labels).mean()
    assert abs(result.top1 - agreed) <= (1 / 12 if precision == "fp32" else 3 / 12)
