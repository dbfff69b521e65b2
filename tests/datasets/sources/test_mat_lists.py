"""Cars, Flowers102 and StanfordDogs, whose lists are MATLAB files."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from torchvision import datasets as torchvision_datasets

from common.errors import UserError
from datasets.registry import load_task
from datasets.sources.cars import cars_task
from datasets.sources.flowers102 import flowers102_task
from datasets.sources.stanford_dogs import breed, stanford_dogs_task
from tests.datasets.sources.listed_copies import COPIES, car_annotations, cell


def same_as(task, oracle):
    """Images and labels are those of a torchvision data set."""
    assert len(task) == len(oracle)
    for index, (image, label) in enumerate(oracle):
        assert task.labels[index] == label
        assert np.array_equal(task.samples.image(index), image)


# --- Cars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_cars_are_those_of_torchvision(split, tmp_path):
    COPIES["Cars"].write(tmp_path)
    oracle = torchvision_datasets.StanfordCars(tmp_path, split)
    task = cars_task("Cars", split, tmp_path)
    same_as(task, oracle)
    assert list(task.classnames) == oracle.classes


def test_one_car_is_a_list_too(tmp_path):
    root = COPIES["Cars"].write(tmp_path)
    car_annotations(root / "cars_test_annos_withlabels.mat", ["00002.jpg"], [196])
    task = load_task("Cars", "test", data_dir=tmp_path)
    assert (task.sample_ids, task.labels.tolist()) == (["cars_test/00002.jpg"], [195])


def test_cars_without_labels_are_refused(tmp_path):
    """cars_test_annos.mat of the devkit under the other's name."""
    root = COPIES["Cars"].write(tmp_path)
    annotations = np.array([[("00001.jpg",)]], dtype=[("fname", object)])
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": annotations})
    with pytest.raises(UserError, match=r"withlabels.mat' is damaged: its annotations lack 'fname' or 'class'"):
        load_task("Cars", "test", data_dir=tmp_path)


def test_a_car_of_no_class_is_refused(tmp_path):
    root = COPIES["Cars"].write(tmp_path)
    car_annotations(root / "cars_test_annos_withlabels.mat", ["00001.jpg", "00002.jpg"], [1, 197])
    with pytest.raises(UserError, match=r"it puts 'cars_test/00002.jpg' in class 197, but classes count from 1 to 196"):
        load_task("Cars", "test", data_dir=tmp_path)


def test_another_matlab_file_is_refused(tmp_path):
    root = COPIES["Cars"].write(tmp_path)
    (root / "devkit" / "cars_meta.mat").replace(root / "cars_test_annos_withlabels.mat")
    with pytest.raises(UserError, match="is damaged: it has no variable 'annotations'"):
        load_task("Cars", "test", data_dir=tmp_path)


# --- Flowers102 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flowers_are_those_of_torchvision(split, tmp_path, monkeypatch):
    root = COPIES["Flowers102"].write(tmp_path)
    (tmp_path / "flowers-102").symlink_to(root)
    monkeypatch.setattr(torchvision_datasets.Flowers102, "_check_integrity", lambda self: True)  # it compares checksums
    oracle = torchvision_datasets.Flowers102(tmp_path, split)
    task = flowers102_task("Flowers102", split, tmp_path)
    same_as(task, oracle)
    assert list(task.classnames) == oracle.classes


def test_a_flower_without_a_label_is_refused(tmp_path):
    root = COPIES["Flowers102"].write(tmp_path)
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 3]], dtype=np.uint8)})
    with pytest.raises(UserError, match=r"setid.mat' is damaged: it lists images beyond the 3 that have a label"):
        load_task("Flowers102", "test", data_dir=tmp_path)


# --- StanfordDogs --------------------------------------------------------------------------------------------------


def test_dogs_are_not_cut_at_a_hyphen(tmp_path):
    COPIES["StanfordDogs"].write(tmp_path)
    task = stanford_dogs_task("StanfordDogs", "test", tmp_path)
    assert task.classnames == ("Chihuahua", "flat-coated retriever", "basenji", "African hunting dog")
    assert breed("n02105855-Shetland_sheepdog") == "Shetland sheepdog"
    assert breed("n02089078-black-and-tan_coonhound") == "black-and-tan coonhound"


def test_dogs_whose_lists_lie_in_a_folder_of_their_own(tmp_path):
    root = COPIES["StanfordDogs"].write(tmp_path)
    before = load_task("StanfordDogs", "test", data_dir=tmp_path).fingerprint
    (root / "lists").mkdir()
    for split in ("train", "test"):
        (root / f"{split}_list.mat").rename(root / "lists" / f"{split}_list.mat")
    assert load_task("StanfordDogs", "test", data_dir=tmp_path).fingerprint == before


def test_files_and_labels_of_different_number_are_refused(tmp_path):
    root = COPIES["StanfordDogs"].write(tmp_path)
    content = loadmat(root / "test_list.mat")
    savemat(root / "test_list.mat", {"file_list": content["file_list"], "labels": content["labels"][:-1]})
    with pytest.raises(UserError, match=r"test_list.mat' is damaged: it has 2 files but 1 labels"):
        load_task("StanfordDogs", "test", data_dir=tmp_path)


@pytest.mark.parametrize("labels", [[1, 3], [1, 1], [0, 1]])
def test_labels_that_do_not_number_the_folders_are_refused(tmp_path, labels):
    root = COPIES["StanfordDogs"].write(tmp_path)
    files = cell("n02085620-Chihuahua/1.jpg", "n02110806-basenji/1.jpg")
    savemat(root / "train_list.mat", {"file_list": files, "labels": np.array(labels)[:, None]})
    with pytest.raises(UserError, match=r"train_list.mat' is damaged: its labels do not number its folders from 1 up"):
        load_task("StanfordDogs", "test", data_dir=tmp_path)
