"""The Task and what makes one: templates, subsets, the fingerprint, the validation part."""

import hashlib
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.fingerprint import Fingerprint
from datasets.samples import UnreadableImage
from datasets.task import Task, as_templates, fill, read_lines, read_template_file, split_validation


@dataclass(frozen=True)
class Colours:
    """Samples of one colour each."""

    names: tuple[str, ...]
    values: tuple[int, ...]

    def __len__(self):
        return len(self.names)

    def image(self, index):
        return Image.new("RGB", (2, 2), (self.values[index],) * 3)

    def sample_id(self, index):
        return self.names[index]

    def digest(self, index):
        return hashlib.sha256(bytes([self.values[index]])).digest()


def make_task(n=10, classes=2):
    samples = Colours(tuple(f"s{i}" for i in range(n)), tuple(i % 256 for i in range(n)))
    names = tuple(f"class {c}" for c in range(classes))
    return Task("Colours", "train", samples, np.arange(n) % classes, names, ("a {c}", "the {c}."))


def test_labels_must_match_samples():
    with pytest.raises(ValueError, match="3 samples but 2 labels"):
        Task("X", "train", Colours(("a", "b", "c"), (1, 2, 3)), np.array([0, 1]), ("a", "b"), ("{c}",))


def test_prompts_has_a_list_per_class_with_each_template():
    assert make_task().prompts() == [["a class 0", "the class 0."], ["a class 1", "the class 1."]]
    assert fill("{c} and {c}", "x{}") == "x{} and x{}"


def test_fingerprint_is_of_id_content_and_label_in_order():
    task, of = make_task(), Fingerprint()
    for index in range(len(task)):
        of.add(task.sample_ids[index], int(task.labels[index]), task.samples.digest(index))
    assert of.hexdigest() == task.fingerprint
    assert [digest.tobytes() for digest in task.digests] == [task.samples.digest(index) for index in range(len(task))]


def test_fingerprint_is_the_same_for_the_same_samples():
    assert make_task().fingerprint == make_task().fingerprint
    assert replace(make_task(), classnames=("other", "names")).fingerprint == make_task().fingerprint


@pytest.mark.parametrize("change", ["id", "content", "label", "order", "length"])
def test_fingerprint_changes_with(change):
    task = make_task()
    samples, labels = task.samples, task.labels.copy()
    if change == "id":
        samples = replace(samples, names=("other", *samples.names[1:]))
    elif change == "content":
        samples = replace(samples, values=(99, *samples.values[1:]))
    elif change == "label":
        labels[0] = 1
    changed = replace(task, samples=samples, labels=labels)
    if change == "order":
        changed = task.subset(np.array([2, 1, 0, *range(3, 10)]))
    elif change == "length":
        changed = task.subset(np.arange(9))
    assert changed.fingerprint != task.fingerprint


def test_subset_keeps_each_sample_with_its_label():
    part = make_task().subset(np.array([7, 2]), "val").subset(np.array([1, 0]))
    assert (part.split, part.sample_ids, part.labels.tolist()) == ("val", ["s2", "s7"], [0, 1])
    assert [part.samples.image(i).getpixel((0, 0))[0] for i in range(2)] == [2, 7]
    assert part.samples.digest(0) == make_task().samples.digest(2)
    assert pickle.loads(pickle.dumps(part)).sample_ids == part.sample_ids


def test_validation_is_a_part_of_the_training_split():
    train, val = split_validation(make_task(100), 0.1)
    assert (len(train), len(val), train.split, val.split) == (90, 10, "train", "val")
    assert sorted(train.sample_ids + val.sample_ids) == sorted(make_task(100).sample_ids)
    assert split_validation(make_task(100), 0.1)[1].sample_ids == val.sample_ids


def test_validation_has_at_most_5000_images():
    train, val = split_validation(make_task(60_000), 0.5)
    assert (len(train), len(val)) == (55_000, 5000)


@pytest.mark.parametrize("proportion", [0.0, 1.0, -0.1, float("nan")])
def test_validation_proportion_outside_0_to_1(proportion):
    with pytest.raises(UserError, match="--val-p must lie between 0 and 1"):
        split_validation(make_task(), proportion)


@pytest.mark.parametrize(("proportion", "advice"), [(0.01, "larger"), (0.99, "smaller")])
def test_validation_that_leaves_nothing(proportion, advice):
    with pytest.raises(UserError, match=f"--val-p {proportion} .* 10 training images of Colours.*; use a {advice} one"):
        split_validation(make_task(), proportion)


def test_templates_in_both_spellings():
    assert as_templates(["a {}.", "the {c}"]) == ("a {c}.", "the {c}")


def test_template_without_a_place_for_the_class():
    with pytest.raises(UserError, match=r"'a photo' has no place for the class name; write it as \{c\}"):
        as_templates(["a {}", "a photo"])


def test_no_template():
    with pytest.raises(UserError, match="No template was given"):
        as_templates([])


def test_lines_are_stripped_and_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufefféta \r\n\n  b c\n".encode())
    assert read_lines(tmp_path / "a.txt") == ["éta", "b c"]


def test_unreadable_text_files(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"latin.txt' is not UTF-8 text: .* at byte 3"):
        read_lines(tmp_path / "latin.txt")
    with pytest.raises(UserError, match=r"Cannot read '.*absent.txt': No such file"):
        read_lines(tmp_path / "absent.txt")
    with pytest.raises(UserError, match=r"empty.txt' holds no template"):
        read_template_file(tmp_path / "empty.txt")


def test_unreadable_image_keeps_its_parts_through_a_pickle():
    error = pickle.loads(pickle.dumps(UnreadableImage("a/b.jpg", "truncated")))
    assert (error.sample_id, error.reason, str(error)) == ("a/b.jpg", "truncated", "a/b.jpg: truncated")
