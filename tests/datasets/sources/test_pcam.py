"""PCAM on a miniature; torchvision reads the same files."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import h5py
import numpy as np
import pytest
import torchvision

from common.errors import UserError
from datasets.registry import load_task
from datasets.samples import UnreadableImage
from datasets.sources.pcam import Hdf5Samples
from tests.datasets.array_files import assert_holds, noise, write_pcam

PIXELS = noise(12, 96, 96, 3)
LABELS = np.arange(12) % 2
ROWS = {"train": slice(0, 6), "valid": slice(6, 9), "test": slice(9, 12)}
START = "camelyonpatch_level_2_split_test"


@pytest.fixture
def data_dir(tmp_path):
    for split, rows in ROWS.items():
        write_pcam(tmp_path / "pcam", split, PIXELS[rows], LABELS[rows])
    return tmp_path


@pytest.mark.parametrize(("split", "file"), [("train", "train"), ("val", "valid"), ("test", "test")])
def test_as_torchvision_reads_it(split, file, data_dir):
    other = list(torchvision.datasets.PCAM(data_dir, split=split))
    task = load_task("PCAM", split, data_dir=data_dir)
    assert_holds(task, PIXELS[ROWS[file]], LABELS[ROWS[file]])
    assert_holds(task, np.stack([np.asarray(image) for image, _ in other]), np.array([label for _, label in other]))
    assert task.split == split
    assert task.sample_ids[1] == f"pcam-{split}-000001"
    assert task.classnames == ("lymph node", "lymph node containing metastatic tumor tissue")
    assert task.fingerprint == load_task("PCAM", split, data_dir=data_dir).fingerprint


def test_pixels_of_many(data_dir):
    samples = load_task("PCAM", "train", data_dir=data_dir).samples
    for indices in ([2, 3, 4], [5], [3, 0, 3], [4, 3, 2]):
        assert np.array_equal(samples.pixels_at(np.array(indices)), PIXELS[indices])


def test_an_open_file_is_not_pickled(data_dir):
    samples = load_task("PCAM", "test", data_dir=data_dir).samples
    samples.image(0)
    data = pickle.dumps(samples)
    assert len(data) < 1000
    assert np.array_equal(np.asarray(pickle.loads(data).image(2)), PIXELS[11])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_processes_read_for_themselves(method, data_dir):
    samples = load_task("PCAM", "train", data_dir=data_dir).samples
    digests = [samples.digest(index) for index in range(6)]  # so that the file is open here
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(samples.digest, range(6))) == digests


def test_the_images_are_not_loaded_with_the_task(data_dir, monkeypatch):
    def refuse(*_):
        raise AssertionError("read before it was asked for")

    monkeypatch.setattr(Hdf5Samples, "pixels_at", refuse)
    assert len(load_task("PCAM", "train", data_dir=data_dir)) == 6


@pytest.mark.parametrize("part", "xy")
def test_missing(part, data_dir):
    (data_dir / f"pcam/{START}_{part}.h5").unlink()
    with pytest.raises(UserError, match=f"^PCAM is not in .*pcam/{START}_{part}.h5' is missing.*--datasets PCAM "):
        load_task("PCAM", "test", data_dir=data_dir)


@pytest.mark.parametrize("part", "xy")
@pytest.mark.parametrize("damage", [lambda data: data[:-2], lambda data: data[:100], lambda data: b"", lambda data: b"<html>"])
def test_torn(part, damage, data_dir):
    path = data_dir / f"pcam/{START}_{part}.h5"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path.name}' is torn or no HDF5 file with '{part}'"):
        load_task("PCAM", "test", data_dir=data_dir)


@pytest.mark.parametrize(
    ("part", "content", "sentence"),
    [
        ("x", {"y": PIXELS[:3]}, "torn or no HDF5 file with 'x'"),
        ("x", {"x": PIXELS[:3, :32, :32]}, r"holds 'x' \[3, 32, 32, 3\] of uint8, not \[N, 96, 96, 3\] of uint8"),
        ("x", {"x": PIXELS[:3].astype(np.float32)}, "of float32, not"),
        ("y", {"y": LABELS[:3].astype(np.uint8)}, r"holds 'y' \[3\] of uint8, not \[N, 1, 1, 1\]"),
        ("y", {"y": LABELS[:2].astype(np.uint8).reshape(-1, 1, 1, 1)}, "holds 2 labels, but there are 3 images"),
        ("y", {"y": np.full((3, 1, 1, 1), 2, np.uint8)}, "holds the label 2, but the labels of PCAM are 0 to 1"),
    ],
)
def test_wrong_content(part, content, sentence, data_dir):
    with h5py.File(data_dir / f"pcam/{START}_{part}.h5", "w") as file:
        for key, values in content.items():
            file[key] = values
    with pytest.raises(UserError, match=sentence):
        load_task("PCAM", "test", data_dir=data_dir)


def test_damage_in_the_middle_is_an_unreadable_image(data_dir):
    path = data_dir / f"pcam/{START}_x.h5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset("x", data=PIXELS[:3], chunks=(1, 96, 96, 3), compression="gzip")
        place = array.id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(data)
    samples = load_task("PCAM", "test", data_dir=data_dir).samples
    with pytest.raises(UnreadableImage, match="pcam-test-000001: "):
        samples.image(1)
    assert np.array_equal(np.asarray(samples.image(2)), PIXELS[2])
    assert samples.digest(1) != samples.digest(2)
