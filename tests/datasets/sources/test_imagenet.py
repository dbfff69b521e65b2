"""ImageNet and its test sets on copies with all folders and next to no images; torchvision and timm are the oracles."""

import pkgutil
import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from common.errors import UserError
from datasets.registry import load_task
from datasets.sources.imagenet import TEST_SETS, imagenet_classnames, wordnet_ids

V2, SKETCH, R, A = TEST_SETS
RED = ("n01443537", (250, 5, 5))  # goldfish: class 1, and class 0 of R


def timm_list(file):
    return pkgutil.get_data("timm.data", f"_info/{file}").decode().split()


def write_folders(root, folders, names):
    """``names`` in each of ``folders``: links to one picture, but for a red one in the folder of goldfish."""
    root.mkdir(parents=True)
    Image.new("RGB", (4, 4), (0, 0, 255)).save(root.parent / "blue.jpg")
    for folder in folders:
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).hardlink_to(root.parent / "blue.jpg")
    if RED[0] in folders:
        (root / RED[0] / names[0]).unlink()
        Image.new("RGB", (6, 5), RED[1]).save(root / RED[0] / names[0], format="JPEG", quality=95)
    (root.parent / "blue.jpg").unlink()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All five sets. Do not write to it."""
    root = tmp_path_factory.mktemp("data")
    synsets = timm_list("imagenet_synsets.txt")
    write_folders(root / "imagenet/train", synsets, ["n_18.JPEG", "n_2.JPEG"])
    write_folders(root / "imagenet/val", synsets, ["ILSVRC2012_val_00000293.JPEG"])
    write_folders(root / "imagenetv2-matched-frequency-format-val", [str(number) for number in range(1000)], ["0af3.jpeg"])
    write_folders(root / "sketch", synsets, ["sketch_0.JPEG"])
    write_folders(root / "imagenet-r", timm_list("imagenet_r_synsets.txt"), ["art_0.jpg", "toy_1.jpg"])
    write_folders(root / "imagenet-a", timm_list("imagenet_a_synsets.txt"), ["0.000116_digital clock _ digital clock_0.865662.jpg"])
    (root / "imagenet-r/README.txt").write_text("about")
    return root


@pytest.fixture
def small(tmp_path, data):
    """A copy of ImageNet-R that a test may spoil."""
    shutil.copytree(data / "imagenet-r", tmp_path / "imagenet-r")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "split", "folder"),
    [
        ("ImageNet", "test", "imagenet/val"),
        (SKETCH, "test", "sketch"),
        (R, "test", "imagenet-r"),
        (A, "test", "imagenet-a"),
    ],
)
def test_files_and_labels_are_torchvisions(data, name, split, folder):
    task, oracle = load_task(name, split, data_dir=data), ImageFolder(data / folder)
    assert [str(task.samples.path(index)) for index in range(len(task))] == [path for path, _ in oracle.samples]
    assert task.labels.tolist() == oracle.targets
    assert len(task.classnames) == len(oracle.classes)
    assert task.sample_ids == [path.removeprefix(f"{data / folder}/") for path, _ in oracle.samples]
    assert task.templates == ("a photo of a {c}",)


def test_train_and_val_divide_the_train_folder(data):
    train, val = (load_task("ImageNet", split, data_dir=data) for split in ("train", "val"))
    assert (len(train), len(val)) == (1800, 200)
    oracle = dict(ImageFolder(data / "imagenet/train").samples)
    for task in (train, val):
        assert all(oracle[f"{data}/imagenet/train/{name}"] == label for name, label in zip(task.sample_ids, task.labels, strict=True))
    assert set(train.sample_ids).isdisjoint(val.sample_ids)


def test_folders_of_v2_are_numbers(data):
    """Sorted as text, folder 10 would be class 2."""
    task = load_task(V2, "test", data_dir=data)
    assert task.sample_ids[:3] == ["0/0af3.jpeg", "1/0af3.jpeg", "2/0af3.jpeg"]
    assert [int(name.split("/")[0]) for name in task.sample_ids] == task.labels.tolist() == list(range(1000))
    assert ImageFolder(data / TEST_SETS[V2][0]).class_to_idx["10"] == 2


def test_the_thousand_classes():
    assert wordnet_ids() == tuple(sorted(timm_list("imagenet_synsets.txt")))
    names = imagenet_classnames()
    assert len(names) == 1000
    assert (names[1], names[134], names[517], names[999]) == ("goldfish", "crane bird", "construction crane", "toilet paper")


@pytest.mark.parametrize(("name", "letter"), [(R, "r"), (A, "a")])
def test_the_two_hundred_classes(data, name, letter):
    task = load_task(name, "test", data_dir=data)
    indices = [int(index) for index in timm_list(f"imagenet_{letter}_indices.txt")]
    assert task.classnames == tuple(imagenet_classnames()[index] for index in indices)
    for position in (0, 57, len(task) - 1):
        folder = task.sample_ids[position].split("/")[0]
        assert wordnet_ids()[indices[task.labels[position]]] == folder


def test_pixels(data):
    task = load_task(R, "test", data_dir=data)
    assert task.sample_ids[0] == f"{RED[0]}/art_0.jpg"
    assert (task.classnames[task.labels[0]], task.samples.image(0).size) == ("goldfish", (6, 5))
    assert np.abs(np.asarray(task.samples.image(0)).astype(int) - RED[1]).max() < 12
    assert np.asarray(task.samples.image(1))[0, 0, 2] > 240


@pytest.mark.parametrize(
    ("name", "usual", "other"),
    [
        ("ImageNet", "imagenet/val", "imagenet/images/val"),
        (SKETCH, "sketch", "imagenet-sketch/sketch"),
        (SKETCH, "sketch", "imagenet-sketch"),
    ],
)
def test_other_places(data, tmp_path, name, usual, other):
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / other).symlink_to(data / usual)
    assert load_task(name, "test", data_dir=tmp_path).listing == load_task(name, "test", data_dir=data).listing


def test_the_fingerprint_follows_the_files(small):
    before = load_task(R, "test", data_dir=small)
    assert load_task(R, "test", data_dir=small).fingerprint == before.fingerprint
    Image.new("RGB", (4, 4)).save(small / "imagenet-r" / wordnet_ids()[988] / "toy_1.jpg")
    after = load_task(R, "test", data_dir=small)
    assert (after.listing, after.fingerprint != before.fingerprint) == (before.listing, True)
    (small / "imagenet-r" / wordnet_ids()[988] / "toy_1.jpg").rename(small / "imagenet-r" / wordnet_ids()[988] / "toy_2.jpg")
    assert load_task(R, "test", data_dir=small).listing != before.listing


@pytest.mark.parametrize("name", TEST_SETS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_test_sets_cannot_be_trained_on(data, name, split):
    with pytest.raises(UserError, match=f"{name} has a test split only; train on ImageNet"):
        load_task(name, split, data_dir=data)


@pytest.mark.parametrize("name", ["ImageNet", *TEST_SETS])
def test_absent(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name} is not in .* is missing\); .* 'python download_datasets\.py .*{name}"):
        load_task(name, "test", data_dir=tmp_path)


def test_missing_class_folders(small):
    for index in (1, 4):
        shutil.rmtree(small / "imagenet-r" / wordnet_ids()[index])
    with pytest.raises(UserError, match=r"imagenet-r' has 198 of the 200 class folders of ImageNetRendition \('n01443537' is missing\)"):
        load_task(R, "test", data_dir=small)


def test_a_copy_with_fewer_classes(data, tmp_path):
    """Folders of R in the place of ImageNet's would all get wrong labels."""
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/val").symlink_to(data / "imagenet-r")
    with pytest.raises(UserError, match=r"has 200 of the 1000 class folders of ImageNet \('n01440764' is missing\)"):
        load_task("ImageNet", "test", data_dir=tmp_path)


def test_validation_images_without_folders(tmp_path):
    """As ImageNet's own archive has them."""
    (tmp_path / "imagenet/val").mkdir(parents=True)
    (tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(UserError, match="has 0 of the 1000 class folders"):
        load_task("ImageNet", "test", data_dir=tmp_path)


def test_an_empty_class_folder(small):
    folder = small / "imagenet-r" / RED[0]
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=rf"'{folder}' holds no image; unpack ImageNetRendition again\."):
        load_task(R, "test", data_dir=small)
