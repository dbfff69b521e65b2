"""The data sets whose lists are text: what is peculiar to each."""

import json

import numpy as np
import pytest
from torchvision import datasets as torchvision_datasets

from common.errors import UserError
from datasets.facts import classnames
from datasets.registry import load_task
from datasets.sources.cub import bird, cub_task
from datasets.sources.dtd import dtd_paper_task, dtd_task
from datasets.sources.fgvc_aircraft import fgvc_aircraft_task
from datasets.sources.food101 import food101_task
from datasets.sources.oxford_pets import oxford_pets_task
from datasets.sources.sun397 import scene
from datasets.sources.ucf101 import words
from tests.datasets.sources.listed_copies import COPIES, text


def same_files(task, oracle):
    """The images, in order, are those of a torchvision data set."""
    assert len(task) == len(oracle)
    for index, (image, _) in enumerate(oracle):
        assert np.array_equal(task.samples.image(index), image)


# --- DTD -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_textures_are_those_of_torchvision(split, tmp_path):
    root = COPIES["DTD"].write(tmp_path)
    (tmp_path / "torchvision" / "dtd").mkdir(parents=True)
    (tmp_path / "torchvision" / "dtd" / "dtd").symlink_to(root)
    oracle = torchvision_datasets.DTD(tmp_path / "torchvision", split)
    task = dtd_task("DTD", split, tmp_path)
    same_files(task, oracle)
    assert [task.classnames[label] for label in task.labels] == [oracle.classes[label] for _, label in oracle]
    nested = dtd_task("DTD", split, tmp_path / "torchvision")
    assert nested.fingerprint == task.fingerprint


def test_the_paper_s_textures_are_tested_on_the_validation_list(tmp_path):
    COPIES["DTD"].write(tmp_path)
    val, test = (load_task("DTD", split, data_dir=tmp_path) for split in ("val", "test"))
    paper = load_task("DTD@paper", "test", data_dir=tmp_path)
    assert (paper.name, paper.fingerprint) == ("DTD@paper", val.fingerprint)
    assert not set(paper.sample_ids) & set(test.sample_ids)


def test_the_paper_s_training_textures_are_the_training_list(tmp_path):
    COPIES["DTD"].write(tmp_path)
    standard, paper = load_task("DTD", "train", data_dir=tmp_path), dtd_paper_task("DTD", "train", tmp_path)
    assert paper.fingerprint == standard.fingerprint
    assert dtd_paper_task("DTD", "val", tmp_path).fingerprint == dtd_paper_task("DTD", "test", tmp_path).fingerprint


# --- SUN397 --------------------------------------------------------------------------------------------------------

# The folders of ClassName.txt that lie in another; all others are one folder per scene.
DIVIDED = """
    apartment_building/outdoor apse/indoor arrival_gate/outdoor athletic_field/outdoor atrium/public badminton_court/indoor
    bakery/shop balcony/exterior balcony/interior basketball_court/outdoor bazaar/indoor bazaar/outdoor bistro/indoor
    booth/indoor bow_window/indoor bow_window/outdoor brewery/indoor cabin/outdoor canal/natural canal/urban
    car_interior/backseat car_interior/frontseat casino/indoor cathedral/indoor cathedral/outdoor cavern/indoor
    chicken_coop/indoor chicken_coop/outdoor church/indoor church/outdoor cloister/indoor control_tower/outdoor
    covered_bridge/exterior cubicle/office desert/sand desert/vegetation diner/indoor diner/outdoor dinette/home
    dinette/vehicle doorway/outdoor driving_range/outdoor elevator/door elevator/interior escalator/indoor factory/indoor
    field/cultivated field/wild firing_range/indoor florist_shop/indoor forest/broadleaf forest/needleleaf garage/indoor
    gazebo/exterior general_store/indoor general_store/outdoor greenhouse/indoor greenhouse/outdoor gymnasium/indoor
    hangar/indoor hangar/outdoor hot_tub/outdoor hotel/outdoor hunting_lodge/outdoor ice_skating_rink/indoor
    ice_skating_rink/outdoor inn/outdoor jacuzzi/indoor jail/indoor kennel/indoor kennel/outdoor labyrinth/outdoor
    lake/natural library/indoor library/outdoor lido_deck/outdoor market/indoor market/outdoor moat/water
    monastery/outdoor mosque/indoor mosque/outdoor movie_theater/indoor museum/indoor nuclear_power_plant/outdoor
    observatory/outdoor oil_refinery/outdoor outhouse/outdoor parking_garage/indoor parking_garage/outdoor
    pilothouse/indoor planetarium/outdoor podium/indoor podium/outdoor poolroom/establishment poolroom/home
    power_plant/outdoor pub/indoor shopping_mall/indoor stadium/baseball stadium/football stage/indoor
    subway_station/platform swimming_pool/indoor swimming_pool/outdoor synagogue/indoor synagogue/outdoor
    temple/east_asia temple/south_asia tennis_court/indoor tennis_court/outdoor tent/outdoor theater/indoor_procenium
    theater/indoor_seats track/outdoor train_station/platform underwater/coral_reef volleyball_court/indoor
    volleyball_court/outdoor warehouse/indoor waterfall/block waterfall/fan waterfall/plunge wine_cellar/barrel_storage
    wine_cellar/bottle_storage wrestling_ring/indoor
""".split()  # noqa: SIM905 (a list as long as this)


def test_every_scene_s_folder_is_its_class():
    """Sorted by path, as in ClassName.txt, the scenes are those of the facts, in nearly their order."""
    names, divided = classnames("sun397"), {folder.replace("/", " ").replace("_", " "): folder for folder in DIVIDED}
    folders = [f"/{name[0]}/{divided.get(name, name.replace(' ', '_'))}" for name in names]
    assert set(divided) < set(names)
    assert [scene(folder) for folder in folders] == list(names)
    by_path = [scene(folder) for folder in sorted(folders)]
    assert sorted(by_path) == list(names)
    assert by_path != list(names)


def test_labels_follow_the_words_and_not_the_order_of_the_folders(tmp_path):
    """/j/jail/indoor sorts before /j/jail_cell, "jail cell" before "jail indoor"."""
    COPIES["SUN397"].write(tmp_path)
    task = load_task("SUN397", "train", data_dir=tmp_path, val_p=0.3)
    labels = dict(zip(task.sample_ids, task.labels.tolist(), strict=True))
    names = classnames("sun397")
    assert names.index("jail cell") + 1 == names.index("jail indoor")
    assert all(labels[path] == names.index(name) for path, name in COPIES["SUN397"].splits["train"] if path in labels)


def test_a_scene_that_is_none_is_refused(tmp_path):
    root = COPIES["SUN397"].write(tmp_path)
    text(root / "Testing_01.txt", "/a/abbey/sun_a.jpg", "/j/jail/sun_b.jpg")
    with pytest.raises(UserError, match=r"Testing_01.txt' is damaged: 'SUN397/j/jail/sun_b.jpg' belongs to no class of SUN397"):
        load_task("SUN397", "test", data_dir=tmp_path)


# --- Food101, OxfordPets, FGVCAircraft -----------------------------------------------------------------------------


def test_dishes_are_those_of_torchvision(tmp_path):
    """torchvision reads the same lists from JSON."""
    root = COPIES["Food101"].write(tmp_path)
    folders = (root / "meta" / "classes.txt").read_text().split()
    lines = (root / "meta" / "train.txt").read_text().split()
    (root / "meta" / "train.json").write_text(json.dumps({f: [line for line in lines if line.startswith(f + "/")] for f in folders}))
    oracle = torchvision_datasets.Food101(tmp_path, "train")
    task = food101_task("Food101", "train", tmp_path)
    assert [name.replace(" ", "_") for name in task.classnames] == oracle.classes
    by_label = {int(label): np.asarray(task.samples.image(index)) for index, label in enumerate(task.labels)}
    assert len(oracle) == len(task)
    assert all(np.array_equal(by_label[label], image) for image, label in oracle)


@pytest.mark.parametrize(("split", "listed"), [("train", "trainval"), ("test", "test")])
def test_pets_are_those_of_torchvision(split, listed, tmp_path):
    root = COPIES["OxfordPets"].write(tmp_path)
    (tmp_path / "oxford-iiit-pet").symlink_to(root)
    oracle = torchvision_datasets.OxfordIIITPet(tmp_path, listed)
    task = oxford_pets_task("OxfordPets", split, tmp_path)
    same_files(task, oracle)
    assert task.labels.tolist() == [label for _, label in oracle]


def test_a_pet_of_no_class_is_refused(tmp_path):
    root = COPIES["OxfordPets"].write(tmp_path)
    text(root / "annotations" / "test.txt", "Abyssinian_101 38 1 1")
    with pytest.raises(UserError, match="in class 38, but classes count from 1 to 37"):
        load_task("OxfordPets", "test", data_dir=tmp_path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_aircraft_are_those_of_torchvision(split, tmp_path):
    root = COPIES["FGVCAircraft"].write(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b").mkdir()
    (tmp_path / "fgvc-aircraft-2013b" / "data").symlink_to(root)
    oracle = torchvision_datasets.FGVCAircraft(tmp_path, split)
    task = fgvc_aircraft_task("FGVCAircraft", split, tmp_path)
    same_files(task, oracle)
    assert task.labels.tolist() == [label for _, label in oracle]
    assert list(task.classnames) == oracle.classes


# --- UCF101 --------------------------------------------------------------------------------------------------------


def test_actions_are_parted_into_words():
    assert [" ".join(words(action)) for action in ("ApplyEyeMakeup", "YoYo", "TaiChi")] == ["Apply Eye Makeup", "Yo Yo", "Tai Chi"]


@pytest.mark.parametrize("lines", [("1 ApplyEyeMakeup", "3 YoYo"), ("0 ApplyEyeMakeup", "1 YoYo")])
def test_actions_that_are_not_numbered_from_one_are_refused(lines, tmp_path):
    root = COPIES["UCF101"].write(tmp_path)
    text(root / "ucfTrainTestlist" / "classInd.txt", *lines)
    with pytest.raises(UserError, match=r"classInd.txt' is damaged: its classes are not numbered from 1 up"):
        load_task("UCF101", "test", data_dir=tmp_path)


# --- CUB -----------------------------------------------------------------------------------------------------------


def test_birds_have_no_numbers():
    assert bird("022.Chuck_will_Widow") == "Chuck will Widow"


def test_the_order_of_the_class_list_decides_labels(tmp_path):
    root = COPIES["CUB"].write(tmp_path)
    text(root / "classes.txt", "3 200.Common_Yellowthroat", "1 001.Black_footed_Albatross", "2 002.Laysan_Albatross")
    task = cub_task("CUB", "test", tmp_path)
    assert [task.classnames[label] for label in task.labels] == ["Black footed Albatross", "Laysan Albatross"]


@pytest.mark.parametrize(
    ("file", "lines", "sentence"),
    [
        ("image_class_labels", ["1 1", "2 1", "3 2"], r"image_class_labels.txt' is damaged: it does not list the 4 images of images.txt"),
        ("train_test_split", ["1 1", "2 0", "3 0", "5 1"], r"train_test_split.txt' is damaged: it does not list the 4 images"),
        ("train_test_split", ["1 1", "2 0", "3 0", "4 2"], r"train_test_split.txt' is damaged: '2' stands where 0 or 1 is expected"),
        ("image_class_labels", ["1 1", "2 1", "3 2", "4 4"], r"image_class_labels.txt' is damaged: classes.txt has no class 4"),
        ("images", ["1 a/1.jpg", "1 a/2.jpg"], r"images.txt' is damaged: it has a number twice"),
        ("train_test_split", ["1 1", "2 1", "3 1", "4 1"], r"train_test_split.txt' is damaged: it holds no image"),
    ],
)
def test_lists_of_birds_that_contradict_one_another(file, lines, sentence, tmp_path):
    root = COPIES["CUB"].write(tmp_path)
    text(root / f"{file}.txt", *lines)
    with pytest.raises(UserError, match=sentence):
        load_task("CUB", "test", data_dir=tmp_path)
