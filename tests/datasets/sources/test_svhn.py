"""SVHN on a miniature; torchvision reads the same file."""

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.array_files import assert_holds, noise, write_svhn

PIXELS = noise(22, 32, 32, 3)
LABELS = np.arange(22) % 10
TEST = "svhn/test_32x32.mat"


def test_splits(tmp_path):
    write_svhn(tmp_path / "svhn/train_32x32.mat", PIXELS[:20], LABELS[:20])
    write_svhn(tmp_path / TEST, PIXELS[20:], LABELS[20:])
    train, val, test = (load_task("SVHN", split, data_dir=tmp_path) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (18, 2, 2)
    assert_holds(test, PIXELS[20:], LABELS[20:])
    assert test.sample_ids == ["svhn-test-000000", "svhn-test-000001"]
    assert test.classnames == tuple("0123456789")
    assert test.fingerprint == load_task("SVHN", "test", data_dir=tmp_path).fingerprint


def test_as_torchvision_reads_it(tmp_path, monkeypatch):
    path = write_svhn(tmp_path / TEST, PIXELS, LABELS)
    monkeypatch.setattr(torchvision.datasets.svhn, "check_integrity", lambda *_: True)  # the miniature has another checksum
    other = torchvision.datasets.SVHN(path.parent, split="test")
    task = load_task("SVHN", "test", data_dir=tmp_path)
    assert_holds(task, other.data.transpose(0, 2, 3, 1), other.labels)
    assert 0 in task.labels and 10 not in task.labels
    assert task.samples.pixels.flags.c_contiguous


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"^SVHN is not in .*svhn/test_32x32.mat' is missing.*--datasets SVHN "):
        load_task("SVHN", "test", data_dir=tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-500], lambda data: data[:200], lambda data: b"", lambda data: b"<html>" * 99])
def test_torn(damage, tmp_path):
    path = write_svhn(tmp_path / TEST, PIXELS, LABELS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"test_32x32.mat' is torn or no MATLAB file"):
        load_task("SVHN", "test", data_dir=tmp_path)


HWCN = PIXELS.transpose(1, 2, 3, 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"y": LABELS}, r"lacks X \[32, 32, 3, N\]"),
        ({"X": HWCN}, r"or y \[N, 1\]"),
        ({"X": HWCN[1:], "y": LABELS}, "lacks X"),
        ({"X": HWCN.astype(float), "y": LABELS}, "lacks X"),
        ({"X": HWCN, "y": LABELS[1:, None]}, "holds 21 labels, but there are 22 images"),
        ({"X": HWCN, "y": LABELS[:, None] + 2}, "holds the label 11, but the labels of SVHN are 0 to 9"),
    ],
)
def test_wrong_content(content, sentence, tmp_path):
    (tmp_path / "svhn").mkdir()
    savemat(tmp_path / TEST, content)
    with pytest.raises(UserError, match=sentence):
        load_task("SVHN", "test", data_dir=tmp_path)
