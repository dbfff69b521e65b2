"""STL10 on a miniature; torchvision reads the same files."""

import numpy as np
import pytest
import torchvision

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.array_files import assert_holds, noise, write, write_stl10

PIXELS = noise(14, 96, 96, 3)
LABELS = np.arange(14) % 10
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]  # the lines of class_names.txt


@pytest.fixture
def folder(tmp_path):
    write_stl10(tmp_path / "stl10_binary", "train", PIXELS[:10], LABELS[:10])
    write_stl10(tmp_path / "stl10_binary", "test", PIXELS[10:], LABELS[10:])
    write(tmp_path / "stl10_binary/class_names.txt", "".join(f"{name}\n" for name in CLASSES).encode())
    return tmp_path / "stl10_binary"


def test_splits(folder):
    train, val, test = (load_task("STL10", split, data_dir=folder.parent) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (9, 1, 4)
    assert_holds(test, PIXELS[10:], LABELS[10:])
    assert test.sample_ids[3] == "stl10-test-000003"
    assert test.fingerprint == load_task("STL10", "test", data_dir=folder.parent).fingerprint
    assert test.samples.pixels.flags.c_contiguous


def test_as_torchvision_reads_it(folder, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.stl10, "check_integrity", lambda *_: True)  # the miniature has other checksums
    other, task = torchvision.datasets.STL10(folder.parent, split="test"), load_task("STL10", "test", data_dir=folder.parent)
    assert_holds(task, other.data.transpose(0, 2, 3, 1), other.labels)
    assert list(task.classnames) == other.classes


@pytest.mark.parametrize("file", ["test_X.bin", "test_y.bin"])
def test_missing(file, folder):
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"^STL10 is not in .*stl10_binary/{file}' is missing.*--datasets STL10 "):
        load_task("STL10", "test", data_dir=folder.parent)


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        ("test_X.bin", lambda data: data[:-1], "test_X.bin' is torn: its 110591 bytes are not whole records of 27648"),
        ("test_X.bin", lambda data: data[:27648], "test_y.bin' holds 4 labels, but there are 1 images"),
        ("test_y.bin", lambda data: data + b"\x01", "test_y.bin' holds 5 labels, but there are 4 images"),
        ("test_y.bin", lambda data: b"\x00" + data[1:], "holds the label 0, but the labels of STL10 are 1 to 10"),
        ("test_y.bin", lambda data: b"\x0b" + data[1:], "holds the label 11, but the labels of STL10 are 1 to 10"),
    ],
)
def test_damaged(file, damage, sentence, folder):
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    with pytest.raises(UserError, match=sentence):
        load_task("STL10", "test", data_dir=folder.parent)
