"""The drawn tasks: deterministic, balanced, disjoint from each other's splits and from pretraining."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from common.errors import UserError
from datasets.sources.captions import SEEDS, captioned
from datasets.sources.drawings import HELD_OUT_COLORS, HELD_OUT_KINDS, NUMBERS, PLACES, render
from datasets.sources.drawn import DEFINITIONS, DRAWN_TASKS, SPLIT_SIZES, DrawnSamples, contact_sheet, drawn_task
from datasets.task import split_validation


def test_at_least_twelve_tasks_with_different_class_sets():
    assert len(DRAWN_TASKS) >= 12
    assert all(name.startswith(("Shapes-", "Glyphs-")) for name in DRAWN_TASKS)
    assert len({DEFINITIONS[name].classnames for name in DRAWN_TASKS}) >= 10


@pytest.mark.parametrize("name", DRAWN_TASKS)
@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_splits_are_balanced_and_about_the_promised_size(name, split):
    task = drawn_task(name, split)
    counts = np.bincount(task.labels, minlength=len(task.classnames))
    assert task.labels.dtype == np.int64 and len(set(counts.tolist())) == 1
    assert 0.95 * SPLIT_SIZES[split] <= len(task) <= SPLIT_SIZES[split]
    assert all("{c}" in template for template in task.templates)


@pytest.mark.parametrize("name", DRAWN_TASKS)
def test_labels_say_what_is_drawn(name):
    task, definition = drawn_task(name, "test"), DEFINITIONS[name]
    for index, label in enumerate(task.labels[:100].tolist()):
        drawing = task.samples.drawing(index)
        shown = definition.shown[task.classnames[label]]
        assert {field: getattr(drawing, field) for field in shown} == shown


@pytest.mark.parametrize("name", DRAWN_TASKS)
def test_no_image_is_in_both_splits(name):
    images = {split: {drawn_task(name, split).samples.image(index).tobytes() for index in range(200)} for split in SPLIT_SIZES}
    assert all(len(pixels) == 200 for pixels in images.values())
    assert not images["train"] & images["test"]


def test_no_drawing_of_any_task_has_a_seed_of_another_or_of_pretraining():
    seeds = [DrawnSamples(name, split).drawing(i).seed for name in DRAWN_TASKS for split in SPLIT_SIZES for i in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert not any(seed in SEEDS for seed in seeds)


def test_no_test_image_is_among_pretraining_images():
    pretraining = {render(captioned(SEEDS.start + 1_000_003 * step).drawing).tobytes() for step in range(4000)}
    tests = {drawn_task(name, "test").samples.image(index).tobytes() for name in DRAWN_TASKS for index in range(100)}
    assert len(pretraining) == 4000 and not pretraining & tests


def test_pretraining_never_shows_the_held_out_pairs():
    drawings = [captioned(SEEDS.start + 999_983 * step).drawing for step in range(4000)]
    assert {d.color for d in drawings} >= set(HELD_OUT_COLORS) and {d.thing for d in drawings} >= set(HELD_OUT_KINDS)
    assert not any(d.color in HELD_OUT_COLORS and d.thing in HELD_OUT_KINDS for d in drawings)
    assert not any(d.outlined or d.mirrored or d.inverted for d in drawings)


def test_two_readings_agree_and_survive_pickling():
    task = drawn_task("Shapes-Noisy", "test")
    copy = pickle.loads(pickle.dumps(task))
    assert copy.fingerprint == drawn_task("Shapes-Noisy", "test").fingerprint
    assert copy.samples.image(7).tobytes() == task.samples.image(7).tobytes()


def test_fingerprints_differ_between_tasks_and_splits():
    fingerprints = {drawn_task(name, split).fingerprint for name in DRAWN_TASKS for split in SPLIT_SIZES}
    assert len(fingerprints) == 2 * len(DRAWN_TASKS)


def test_ids_are_unique():
    task = drawn_task("Glyphs-Letters", "train")
    assert len(set(task.sample_ids)) == len(task)


def test_validation_is_drawn_from_train():
    train, validation = split_validation(drawn_task("Shapes-Kind", "train"), 0.2)
    assert not set(train.sample_ids) & set(validation.sample_ids)
    assert len(train) + len(validation) == len(drawn_task("Shapes-Kind", "train"))


def test_class_names_follow_their_tables():
    assert DEFINITIONS["Shapes-Position"].classnames == tuple(PLACES.values())
    assert DEFINITIONS["Shapes-Count"].classnames == NUMBERS[2:7]
    assert drawn_task("Shapes-Color", "test").prompts()[0] == ["a photo of a red shape."]


def test_unknown_names_are_told_plainly():
    with pytest.raises(UserError, match="did you mean 'Shapes-Color'"):
        drawn_task("Shapes-Colour", "test")
    with pytest.raises(UserError, match="not 'val'"):
        drawn_task("Shapes-Color", "val")


def test_contact_sheet_has_a_row_per_task():
    assert contact_sheet().height % len(DRAWN_TASKS) == 0


def test_the_tasks_need_no_torch():
    code = "import sys; from datasets.sources import digits, drawn; drawn.drawn_task('Shapes-Kind', 'test').samples.image(0)"
    code += "; assert not {'torch', 'open_clip', 'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
