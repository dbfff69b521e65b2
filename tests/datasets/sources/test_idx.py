"""The idx data sets, on miniatures made of scikit-learn's real digits; torchvision reads the same files."""

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.array_files import assert_holds, write, write_idx_pair

DIGITS = load_digits()
LABELS = DIGITS.target[:40]
PIXELS = np.pad(np.kron((DIGITS.images[:40] * 15.9375).astype(np.uint8), np.ones((3, 3), np.uint8)), ((0, 0), (2, 2), (2, 2)))
LIKE_MNIST = ("MNIST", "FashionMNIST", "KMNIST")


def write_both(data_dir, name, end=""):
    write_idx_pair(data_dir / name / "raw", "train", PIXELS[:30], LABELS[:30], end)
    write_idx_pair(data_dir / name / "raw", "t10k", PIXELS[30:], LABELS[30:], end)


@pytest.mark.parametrize("name", LIKE_MNIST)
def test_as_torchvision_reads_them(name, tmp_path):
    write_both(tmp_path, name)
    for split in ("train", "test"):
        task, other = load_task(name, split, data_dir=tmp_path), getattr(torchvision.datasets, name)(tmp_path, train=split == "train")
        rows = [int(sample_id.rpartition("-")[2]) for sample_id in task.sample_ids]
        assert len(task) == {"train": 27, "test": 10}[split]
        assert_holds(task, other.data.numpy()[rows], other.targets.numpy()[rows])


@pytest.mark.parametrize(
    ("name", "first"), [("MNIST", "0 1 2"), ("FashionMNIST", "T - shirt / top Trouser Pullover"), ("KMNIST", "お き す")]
)
def test_class_names(name, first, tmp_path):
    write_both(tmp_path, name)
    classnames = load_task(name, "test", data_dir=tmp_path).classnames
    assert len(classnames) == 10
    assert " ".join(classnames[:3]) == first


def test_ids_and_validation(tmp_path):
    write_both(tmp_path, "MNIST")
    train, val, test = (load_task("MNIST", split, data_dir=tmp_path) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (27, 3, 10)
    assert sorted(train.sample_ids + val.sample_ids) == [f"mnist-train-{number:06d}" for number in range(30)]
    assert test.sample_ids[9] == "mnist-test-000009"
    assert_holds(test, PIXELS[30:], LABELS[30:])


def test_compressed_files_are_the_same_task(tmp_path):
    write_both(tmp_path / "plain", "MNIST")
    write_both(tmp_path / "gz", "MNIST", ".gz")
    plain, compressed = (load_task("MNIST", "test", data_dir=tmp_path / folder) for folder in ("plain", "gz"))
    assert plain.fingerprint == compressed.fingerprint
    assert plain.samples.pixels.flags.writeable  # as torch.from_numpy wants it
    assert compressed.samples.pixels.flags.writeable


def test_letters_stand_upright_and_count_from_zero(tmp_path):
    letters = np.array([1, 26, 2, 3])  # as in the file
    write_idx_pair(tmp_path / "EMNIST/raw", "emnist-letters-test", PIXELS[:4].transpose(0, 2, 1), letters)
    task = load_task("EMNISTLetters", "test", data_dir=tmp_path)
    assert_holds(task, PIXELS[:4], letters - 1)
    assert "".join(task.classnames[label] for label in task.labels) == "AZBC"
    stored = torchvision.datasets.EMNIST(tmp_path, "letters", train=False)  # which leaves the images lying
    assert np.array_equal(stored.data.numpy().transpose(0, 2, 1), task.samples.pixels)
    assert [stored.classes[target].upper() for target in stored.targets] == [task.classnames[label] for label in task.labels]
    assert task.samples.pixels.flags.c_contiguous


@pytest.mark.parametrize("name", [*LIKE_MNIST, "EMNISTLetters"])
def test_missing(name, tmp_path):
    with pytest.raises(UserError, match=rf"^{name} is not in .*download_datasets.py --datasets {name} "):
        load_task(name, "test", data_dir=tmp_path)


def test_missing_labels(tmp_path):
    write_both(tmp_path, "MNIST")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte' is missing"):
        load_task("MNIST", "test", data_dir=tmp_path)


IMAGES, NUMBERS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        (IMAGES, lambda data: data[:-5], f"{IMAGES}' is torn: its header promises 7840 bytes, 7835 follow"),
        (IMAGES, lambda data: data + b"\n", "promises 7840 bytes, 7841 follow"),
        (IMAGES, lambda data: data[:3], "is not an idx file of unsigned bytes in 3 dimension"),
        (IMAGES, lambda data: b"<html>" + data, "is not an idx file of unsigned bytes in 3 dimension"),
        (IMAGES, lambda data: b"\0\0\x0d\x03" + data[4:], "is not an idx file of unsigned bytes"),
        (NUMBERS, lambda data: b"\0\0\x08\x03" + data[4:], "is not an idx file of unsigned bytes in 1 dimension"),
        (NUMBERS, lambda data: data[:7] + b"\x09" + data[8:17], "holds 9 labels, but there are 10 images"),
        (NUMBERS, lambda data: data[:-1] + b"\x0b", "holds the label 11, but the labels of MNIST are 0 to 9"),
    ],
)
def test_damaged(file, damage, sentence, tmp_path):
    write_both(tmp_path, "MNIST")
    path = tmp_path / "MNIST/raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as caught:
        load_task("MNIST", "test", data_dir=tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no gzip", lambda data: data[:20] + b"\xff" * 40 + data[60:]])
def test_damaged_gzip(damage, tmp_path):
    write_both(tmp_path, "MNIST", ".gz")
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte.gz' is torn or no gzip file \(.*\); get it anew"):
        load_task("MNIST", "test", data_dir=tmp_path)


def test_letters_of_a_wrong_number(tmp_path):
    write_idx_pair(tmp_path / "EMNIST/raw", "emnist-letters-test", PIXELS[:2], np.array([1, 0]))
    with pytest.raises(UserError, match="holds the label 0, but the labels of EMNISTLetters are 1 to 26"):
        load_task("EMNISTLetters", "test", data_dir=tmp_path)


def test_empty(tmp_path):
    write_idx_pair(tmp_path / "MNIST/raw", "t10k", PIXELS[:0], LABELS[:0])
    with pytest.raises(UserError, match="holds no image of the test split of MNIST"):
        load_task("MNIST", "test", data_dir=tmp_path)


def test_a_folder_in_the_place_of_a_file(tmp_path):
    write(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte/x", b"")
    write(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", b"")
    with pytest.raises(UserError, match=r"Cannot read .*t10k-images-idx3-ubyte': Is a directory"):
        load_task("MNIST", "test", data_dir=tmp_path)
