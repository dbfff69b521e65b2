"""CIFAR10 and CIFAR100, binary and Python version, on miniatures; torchvision reads the same Python files."""

import numpy as np
import pytest
import torchvision

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.array_files import assert_holds, noise, python2_pickle, write, write_cifar_binary, write_cifar_python

PIXELS = noise(24, 32, 32, 3)
LABELS = np.random.default_rng(1).integers(0, 10, 24)
FINE = np.random.default_rng(2).integers(0, 100, 24)
COARSE = np.random.default_rng(3).integers(0, 20, 24)
BATCHES = {f"data_batch_{number}": slice(4 * number - 4, 4 * number) for number in range(1, 6)} | {"test_batch": slice(20, 24)}
SPLITS = {"train": slice(0, 20), "test": slice(20, 24)}
CLASSES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_binary(data_dir):
    for batch, rows in BATCHES.items():
        write_cifar_binary(data_dir / f"cifar-10-batches-bin/{batch}.bin", PIXELS[rows], LABELS[rows])
    for split, rows in SPLITS.items():
        write_cifar_binary(data_dir / f"cifar-100-binary/{split}.bin", PIXELS[rows], COARSE[rows], FINE[rows])


def write_python(data_dir):
    for batch, rows in BATCHES.items():
        write_cifar_python(data_dir / "cifar-10-batches-py" / batch, PIXELS[rows], labels=LABELS[rows])
    for split, rows in SPLITS.items():
        write_cifar_python(data_dir / "cifar-100-python" / split, PIXELS[rows], coarse_labels=COARSE[rows], fine_labels=FINE[rows])


@pytest.fixture(params=[write_binary, write_python])
def data_dir(request, tmp_path):
    request.param(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "labels"), [("CIFAR10", LABELS), ("CIFAR100", FINE)])
def test_images_and_labels(name, labels, data_dir):
    train, val, test = (load_task(name, split, data_dir=data_dir) for split in ("train", "val", "test"))
    assert_holds(test, PIXELS[20:], labels[20:])
    assert test.sample_ids == [f"{name.lower()}-test-{number:06d}" for number in range(4)]
    assert (len(train), len(val)) == (18, 2)
    rows = [int(sample_id.rpartition("-")[2]) for sample_id in train.sample_ids + val.sample_ids]
    assert sorted(rows) == list(range(20))
    assert_holds(train, PIXELS[rows[:18]], labels[rows[:18]])


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_both_versions_are_the_same_task(name, split, tmp_path):
    write_binary(tmp_path / "binary")
    write_python(tmp_path / "python")
    binary, python = (load_task(name, split, data_dir=tmp_path / version) for version in ("binary", "python"))
    assert binary.fingerprint == python.fingerprint
    assert binary.samples is not python.samples


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_as_torchvision_reads_them(name, tmp_path, monkeypatch):
    write_python(tmp_path)
    meta = {"CIFAR10": "cifar-10-batches-py/batches.meta", "CIFAR100": "cifar-100-python/meta"}[name]
    names = load_task(name, "test", data_dir=tmp_path).classnames
    write(tmp_path / meta, python2_pickle({"label_names" if name == "CIFAR10" else "fine_label_names": list(names)}))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)  # the miniature has other checksums
    other = getattr(torchvision.datasets, name)(tmp_path, train=False)
    assert_holds(load_task(name, "test", data_dir=tmp_path), other.data, np.array(other.targets))


def test_class_names(tmp_path):
    write_binary(tmp_path)
    assert list(load_task("CIFAR10", "test", data_dir=tmp_path).classnames) == CLASSES10
    fine = load_task("CIFAR100", "test", data_dir=tmp_path).classnames
    assert list(fine) == sorted(fine)  # as in fine_label_names.txt, which lists them so
    assert len(set(fine)) == 100
    assert fine[26] == "crab"
    assert fine[1] == "aquarium fish"


def test_the_binary_version_goes_first(tmp_path):
    write_binary(tmp_path)
    write(tmp_path / "cifar-10-batches-py/test_batch", b"not read")
    assert len(load_task("CIFAR10", "test", data_dir=tmp_path)) == 4


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"^CIFAR10 is not in .*cifar-10-batches-bin/test_batch.bin' is missing.*--datasets CIFAR10 "):
        load_task("CIFAR10", "test", data_dir=tmp_path)
    write_binary(tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"cifar-10-batches-bin/data_batch_3.bin' is missing"):
        load_task("CIFAR10", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-1], "test.bin' is torn: its 12295 bytes are not whole records of 3074"),
        (lambda data: b"", "holds no image of the test split of CIFAR100"),
        (lambda data: data[:1] + b"\x64" + data[2:], "holds the label 100, but the labels of CIFAR100 are 0 to 99"),
    ],
)
def test_damaged_binary(damage, sentence, tmp_path):
    write_binary(tmp_path)
    path = tmp_path / "cifar-100-binary/test.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as caught:
        load_task("CIFAR100", "test", data_dir=tmp_path)
    assert str(path.parent) in str(caught.value)


PLANES = noise(2, 3072)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1], "is not a batch of the Python version"),
        ({"labels": [1, 2]}, "lacks 'data'"),
        ({"data": PLANES}, "or 'labels'"),
        ({"data": PLANES[:, :-1], "labels": [1, 2]}, r"lacks 'data' \[N, 3072\]"),
        ({"data": PLANES.astype(np.int32), "labels": [1, 2]}, "lacks 'data'"),
        ({"data": PLANES, "labels": [1]}, "has no 'labels' of a number for each of its 2 images"),
        ({"data": PLANES, "labels": ["1", "2"]}, "has no 'labels' of a number for each"),
        ({"data": PLANES, "labels": [[1], [2, 3]]}, "has no 'labels' of a number for each"),
        ({"data": PLANES, "labels": [1, -1]}, "holds the label -1"),
    ],
)
def test_wrong_python(content, sentence, tmp_path):
    write(tmp_path / "cifar-10-batches-py/test_batch", python2_pickle(content))
    with pytest.raises(UserError, match=sentence):
        load_task("CIFAR10", "test", data_dir=tmp_path)


def test_torn_python(tmp_path):
    write_python(tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="test_batch' is no whole pickle of plain data"):
        load_task("CIFAR10", "test", data_dir=tmp_path)


def test_nothing_is_run(tmp_path):
    write(tmp_path / "cifar-10-batches-py/test_batch", b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match=r"holds a reference to os.system; refused"):
        load_task("CIFAR10", "test", data_dir=tmp_path)
