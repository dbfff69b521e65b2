"""GTSRB, EuroSAT, RenderedSST2 and PlantDoc, whose folders are classes."""

import shutil

import numpy as np
import pytest
from torchvision import datasets as torchvision_datasets

from common.errors import UserError
from datasets.facts import classnames
from datasets.registry import load_task
from datasets.sources.eurosat import FOLDERS, HELD_OUT
from datasets.sources.gtsrb import gtsrb_task
from datasets.sources.rendered_sst2 import rendered_sst2_task
from tests.datasets.sources.listed_copies import COPIES, paint, text


def same_as(task, oracle):
    """Images and labels are those of a torchvision data set."""
    assert len(task) == len(oracle)
    for index, (image, label) in enumerate(oracle):
        assert task.labels[index] == label
        assert np.array_equal(task.samples.image(index), image.convert("RGB"))


# --- GTSRB ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_signs_are_those_of_torchvision(split, tmp_path):
    COPIES["GTSRB"].write(tmp_path)
    same_as(gtsrb_task("GTSRB", split, tmp_path), torchvision_datasets.GTSRB(tmp_path, split))


def test_the_answers_may_lie_in_the_archive_s_folder(tmp_path):
    root = COPIES["GTSRB"].write(tmp_path)
    before = load_task("GTSRB", "test", data_dir=tmp_path).fingerprint
    (root / "GT-final_test.csv").rename(root / "GTSRB" / "GT-final_test.csv")
    assert load_task("GTSRB", "test", data_dir=tmp_path).fingerprint == before


def test_a_missing_class_of_signs_is_told(tmp_path):
    root = COPIES["GTSRB"].write(tmp_path)
    shutil.rmtree(root / "GTSRB/Training/00041")
    with pytest.raises(UserError, match=r"^GTSRB is not in '.*Training/00041' is missing\); get it with "):
        load_task("GTSRB", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["Filename;Width", "00000.ppm;7"], "the row of '00000.ppm' lacks its Filename or ClassId"),  # GT-final_test.test.csv
        (["Filename;ClassId", "00000.ppm;x"], "'x' stands where a whole number is expected"),
        (["Filename;ClassId", "00000.ppm;43"], "in class 43, but classes count from 0 to 42"),
    ],
)
def test_answers_that_are_none_are_refused(lines, sentence, tmp_path):
    root = COPIES["GTSRB"].write(tmp_path)
    text(root / "GT-final_test.csv", *lines)
    with pytest.raises(UserError, match=f"GT-final_test.csv' is damaged: .*{sentence}"):
        load_task("GTSRB", "test", data_dir=tmp_path)


# --- EuroSAT -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    """EuroSAT as its archive unpacks, five images more than are held out in each class; do not write to it."""
    data_dir = tmp_path_factory.mktemp("eurosat")
    for folder in FOLDERS:
        (data_dir / "eurosat/2750" / folder).mkdir(parents=True)
        for number in range(1, 2 * HELD_OUT + 6):
            (data_dir / "eurosat/2750" / folder / f"{folder}_{number}.jpg").touch()
    paint(data_dir / "eurosat", "2750/Forest/Forest_1.jpg")
    return data_dir


def test_land_is_drawn_by_class(undivided):
    train, val, test = (load_task("EuroSAT", split, data_dir=undivided) for split in ("train", "val", "test"))
    for task, per_class in ((train, 5), (val, HELD_OUT), (test, HELD_OUT)):
        assert np.bincount(task.labels).tolist() == [per_class] * 10
        assert [path.split("/")[1] for path in task.sample_ids] == [folder for folder in FOLDERS for _ in range(per_class)]
        assert task.sample_ids == sorted(task.sample_ids)
        assert task.classnames == classnames("eurosat")
    ids = train.sample_ids + val.sample_ids + test.sample_ids
    assert len(set(ids)) == len(ids) == 10 * (2 * HELD_OUT + 5)


def test_the_draw_of_land_stays_what_it_is(undivided):
    """Numbers would no longer be comparable with earlier ones if this changed."""
    train = load_task("EuroSAT", "train", data_dir=undivided)
    numbers = [int(path.removesuffix(".jpg").rpartition("_")[2]) for path in train.sample_ids[:5]]
    assert numbers == [107, 202, 38, 384, 496]


def test_divided_land_is_used_as_it_is(undivided, tmp_path):
    COPIES["EuroSAT"].write(tmp_path)
    inside = load_task("EuroSAT", "test", data_dir=tmp_path).fingerprint
    (tmp_path / "eurosat" / "EuroSAT_splits").rename(tmp_path / "EuroSAT_splits")
    (tmp_path / "eurosat" / "2750").symlink_to(undivided / "eurosat" / "2750")
    assert load_task("EuroSAT", "test", data_dir=tmp_path).fingerprint == inside


def test_a_missing_part_of_divided_land_is_told(tmp_path):
    root = COPIES["EuroSAT"].write(tmp_path)
    shutil.rmtree(root / "EuroSAT_splits/val/River")
    with pytest.raises(UserError, match=r"EuroSAT_splits/val/River' is missing\)"):
        load_task("EuroSAT", "val", data_dir=tmp_path)


def test_a_class_of_land_that_is_not_whole_is_refused(tmp_path):
    for folder in FOLDERS:
        paint(tmp_path, f"eurosat/2750/{folder}/{folder}_1.jpg")
    with pytest.raises(UserError, match=r"2750/AnnualCrop' is damaged: it holds 1 images, too few to take 540 away"):
        load_task("EuroSAT", "test", data_dir=tmp_path)


def test_folders_and_names_of_land_are_of_one_kind():
    pairs = dict(zip(FOLDERS, classnames("eurosat"), strict=True))
    assert list(FOLDERS) == sorted(FOLDERS)
    assert (pairs["HerbaceousVegetation"], pairs["SeaLake"]) == ("brushland or shrubland", "lake or sea")
    others = {folder: name for folder, name in pairs.items() if folder not in ("HerbaceousVegetation", "SeaLake")}
    assert all(folder.removesuffix("Crop").lower() in name for folder, name in others.items())


# --- RenderedSST2, PlantDoc ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_reviews_are_those_of_torchvision(split, tmp_path):
    COPIES["RenderedSST2"].write(tmp_path)
    same_as(rendered_sst2_task("RenderedSST2", split, tmp_path), torchvision_datasets.RenderedSST2(tmp_path, split))


def test_reviews_without_a_class_are_told(tmp_path):
    root = COPIES["RenderedSST2"].write(tmp_path)
    shutil.rmtree(root / "test/positive")
    with pytest.raises(UserError, match=r"rendered-sst2/test/positive' is missing\)"):
        load_task("RenderedSST2", "test", data_dir=tmp_path)


def test_leaves_of_the_test_split_have_the_labels_of_training(tmp_path):
    COPIES["PlantDoc"].write(tmp_path)
    task = load_task("PlantDoc", "test", data_dir=tmp_path)
    assert task.classnames == ("Apple Scab Leaf", "Bell pepper leaf", "grape leaf")
    assert task.labels.tolist() == [1, 2]


def test_a_leaf_that_is_not_in_training_is_refused(tmp_path):
    root = COPIES["PlantDoc"].write(tmp_path)
    paint(root, "test/Potato leaf/1.jpg")
    with pytest.raises(UserError, match=r"plantdoc/test' is damaged: 'test/Potato leaf/1.jpg' belongs to no class of PlantDoc"):
        load_task("PlantDoc", "test", data_dir=tmp_path)
