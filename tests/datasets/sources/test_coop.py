"""The coop convention: split files in their real places and form, and the two data sets that have none."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.few_shot import few_shot
from datasets.prompts import default_templates
from datasets.registry import SOURCES, load_task
from datasets.sources.coop import LAYOUTS
from datasets.sources.imagenet import imagenet_classnames, wordnet_ids
from datasets.task import SPLITS


@dataclass(frozen=True)
class Published:
    """What the archives and split files of a data set look like: ``paths`` with # for an image's number, and class names."""

    split_file: str
    images: str
    paths: tuple[str, str, str]
    names: tuple[str, str, str]
    spoken: tuple[str, str, str]
    ids: str  # what sample ids have in front of the paths


PUBLISHED = {
    "Caltech101": Published(
        "caltech-101/split_zhou_Caltech101.json",
        "caltech-101/101_ObjectCategories",
        ("Faces/image_000#.jpg", "Leopards/image_000#.jpg", "crocodile_head/image_000#.jpg"),
        ("face", "leopard", "crocodile_head"),
        ("face", "leopard", "crocodile head"),
        "101_ObjectCategories/",
    ),
    "Cars": Published(
        "stanford_cars/split_zhou_StanfordCars.json",
        "stanford_cars",
        ("cars_train/0000#.jpg", "cars_train/0001#.jpg", "cars_train/0002#.jpg"),
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
        "",
    ),
    "CUB": Published(
        "cub/split_alexey_cub.json",
        "cub/images",
        (
            "001.Black_footed_Albatross/Black_Footed_Albatross_000#_796133.jpg",
            "002.Laysan_Albatross/Laysan_Albatross_000#_602.jpg",
            "023.Brandt_Cormorant/Brandt_Cormorant_000#_23.jpg",
        ),
        ("001.Black_footed_Albatross", "002.Laysan_Albatross", "023.Brandt_Cormorant"),
        ("Black footed Albatross", "Laysan Albatross", "Brandt Cormorant"),
        "images/",
    ),
    "DTD": Published(
        "dtd/split_zhou_DescribableTextures.json",
        "dtd/images",
        ("banded/banded_000#.jpg", "polka-dotted/polka-dotted_000#.jpg", "zigzagged/zigzagged_000#.jpg"),
        ("banded", "polka-dotted", "zigzagged"),
        ("banded", "polka-dotted", "zigzagged"),
        "images/",
    ),
    "EuroSAT": Published(
        "eurosat/split_zhou_EuroSAT.json",
        "eurosat/2750",
        ("AnnualCrop/AnnualCrop_#.jpg", "Highway/Highway_#.jpg", "SeaLake/SeaLake_#.jpg"),
        ("Annual Crop Land", "Highway or Road", "Sea or Lake"),
        ("Annual Crop Land", "Highway or Road", "Sea or Lake"),
        "2750/",
    ),
    "Flowers102": Published(
        "oxford_flowers/split_zhou_OxfordFlowers.json",
        "oxford_flowers/jpg",
        ("image_0000#.jpg", "image_0001#.jpg", "image_0002#.jpg"),
        ("pink primrose", "hard-leaved pocket orchid", "colt's foot"),
        ("pink primrose", "hard-leaved pocket orchid", "colt's foot"),
        "jpg/",
    ),
    "Food101": Published(
        "food-101/split_zhou_Food101.json",
        "food-101/images",
        ("apple_pie/100564#.jpg", "baby_back_ribs/100559#.jpg", "waffles/100114#.jpg"),
        ("apple_pie", "baby_back_ribs", "waffles"),
        ("apple pie", "baby back ribs", "waffles"),
        "images/",
    ),
    "OxfordPets": Published(
        "oxford_pets/split_zhou_OxfordPets.json",
        "oxford_pets/images",
        ("Abyssinian_10#.jpg", "american_bulldog_10#.jpg", "yorkshire_terrier_10#.jpg"),
        ("abyssinian", "american_bulldog", "yorkshire_terrier"),
        ("abyssinian", "american bulldog", "yorkshire terrier"),
        "images/",
    ),
    "PlantDoc": Published(
        "plantdoc/split_alexey_plantdoc.json",
        "plantdoc/all_images",
        (
            "Apple Scab Leaf/#apple-scab_figure-2.jpg",
            "Corn leaf blight/#1Figure%202.JPG.jpg",
            "Tomato leaf/#107picture-id49?k=6&m=49&s=612x612&w=0&h=6zKfv022H_9cLQSIR=.jpg",
        ),
        ("Apple Scab Leaf", "Corn leaf blight", "Tomato leaf"),
        ("Apple Scab Leaf", "Corn leaf blight", "Tomato leaf"),
        "all_images/",
    ),
    "StanfordDogs": Published(
        "stanford_dogs/split_alexey_stanford_dogs.json",
        "stanford_dogs/Images",
        (
            "n02085936-Maltese_dog/n02085936_#.jpg",
            "n02086240-Shih-Tzu/n02086240_#.jpg",
            "n02100236-German_short-haired_pointer/n02100236_#.jpg",
        ),
        ("Maltese dog", "Shih", "German short"),
        ("Maltese dog", "Shih-Tzu", "German short-haired pointer"),
        "Images/",
    ),
    "SUN397": Published(
        "sun397/split_zhou_SUN397.json",
        "sun397/SUN397",
        ("a/abbey/sun_aaa#.jpg", "a/airplane_cabin/sun_aab#.jpg", "a/athletic_field/outdoor/sun_aac#.jpg"),
        ("abbey", "airplane_cabin", "outdoor athletic_field"),
        ("abbey", "airplane cabin", "outdoor athletic field"),
        "SUN397/",
    ),
    "UCF101": Published(
        "ucf101/split_zhou_UCF101.json",
        "ucf101/UCF-101-midframes",
        (
            "Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c0#.jpg",
            "Tai_Chi/v_TaiChi_g08_c0#.jpg",
            "Yo_Yo/v_YoYo_g08_c0#.jpg",
        ),
        ("Apply_Eye_Makeup", "Tai_Chi", "Yo_Yo"),
        ("Apply Eye Makeup", "Tai Chi", "Yo Yo"),
        "UCF-101-midframes/",
    ),
}
LABELS = {"train": (2, 0, 2, 1, 0, 1, 2), "val": (1, 0, 2), "test": (0, 0, 1, 2)}  # of 3 classes; 2 comes first, as in PlantDoc


def split_of(published):
    """The content of the split file: every class's images are numbered from 1, through all splits."""
    numbers, content = [0, 0, 0], {}
    for split, labels in LABELS.items():
        content[split] = []
        for label in labels:
            numbers[label] += 1
            content[split].append([published.paths[label].replace("#", str(numbers[label])), label, published.names[label]])
    return content


def write_split(data_dir, name, content=None, file=None):
    path = data_dir / (file or PUBLISHED[name].split_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(split_of(PUBLISHED[name]) if content is None else content))
    return path


def write_set(data_dir, name, images=None):
    """The miniature: the split file and every image; the n-th image of a class with label c is grey of 40 c + n."""
    published = PUBLISHED[name]
    folder, numbers = data_dir / (images or published.images), [0, 0, 0]
    for entries in split_of(published).values():
        for place, label, _ in entries:
            numbers[label] += 1
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (40 * label + numbers[label],) * 3).save(folder / place, quality=100)
    write_split(data_dir, name)


def test_every_set_with_a_split_file_is_here():
    assert PUBLISHED.keys() == LAYOUTS.keys()
    coop = {name for name, conventions in SOURCES.items() if "coop" in conventions}
    assert coop == PUBLISHED.keys() | {"FGVCAircraft", "ImageNet"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_as_they_are_listed(name, tmp_path):
    write_set(tmp_path, name)
    published, tasks = PUBLISHED[name], {split: load_task(f"{name}@coop", split, data_dir=tmp_path) for split in SPLITS}
    for split, task in tasks.items():
        assert task.labels.tolist() == list(LABELS[split])
        assert task.classnames == published.spoken
        assert task.sample_ids == [published.ids + place for place, _, _ in split_of(published)[split]]
        assert (task.split, task.templates) == (split, default_templates(name))
        assert task.name == ("Caltech101" if name == "Caltech101" else f"{name}@coop")  # it has no other convention
    pixels = np.asarray(tasks["val"].samples.image(2))
    assert pixels.shape == (4, 4, 3)
    assert (pixels == 40 * 2 + 4).all()  # the fourth image of class 2
    assert tasks["train"].fingerprint == load_task(f"{name}@coop", "train", data_dir=tmp_path).fingerprint
    assert len({task.fingerprint for task in tasks.values()}) == 3


def test_the_proportion_for_validation_changes_nothing(tmp_path):
    write_set(tmp_path, "DTD")
    for split, val_p in (("train", 0.1), ("train", 0.5), ("val", 0.5)):
        assert len(load_task("DTD@coop", split, data_dir=tmp_path, val_p=val_p)) == len(LABELS[split])


def test_no_image_is_looked_at(tmp_path):
    write_split(tmp_path, "UCF101")
    (tmp_path / "ucf101/UCF-101-midframes").mkdir()
    assert len(load_task("UCF101@coop", "test", data_dir=tmp_path)) == 4


def test_legacy_few_shot_draws_begin_with_the_class_that_is_listed_first(tmp_path):
    write_set(tmp_path, "PlantDoc")
    drawn = few_shot(load_task("PlantDoc@coop", "train", data_dir=tmp_path), 2, 1, order="legacy")
    assert drawn.labels.tolist() == [2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "images"), [("DTD", "dtd/dtd/images"), ("CUB", "CUB_200_2011/images"), ("CUB", "cub/CUB_200_2011/images")]
)
def test_images_elsewhere(name, images, tmp_path):
    write_set(tmp_path, name, images)
    task = load_task(f"{name}@coop", "test", data_dir=tmp_path)
    assert task.samples.image(0).size == (4, 4)
    assert task.sample_ids[0].startswith("images/")


@pytest.mark.parametrize("name", ["CUB", "PlantDoc", "StanfordDogs"])
def test_a_split_file_of_another_name(name, tmp_path):
    write_set(tmp_path, name)
    published = tmp_path / PUBLISHED[name].split_file
    other = published.with_name("split_zhou_Other.json")
    published.rename(other)
    (other.parent / "about.json").write_text('{"train": "me"}')  # no split file
    assert len(load_task(f"{name}@coop", "train", data_dir=tmp_path)) == 7
    second = write_split(tmp_path, name, file=f"{other.parent.name}/split_own.json")
    sentence = f"'{second}' and '{other}' are both split files of {name}; keep one, or call it '{published.name}'."
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_task(f"{name}@coop", "train", data_dir=tmp_path)
    write_split(tmp_path, name, content={})
    with pytest.raises(UserError, match=f"'{published}' is damaged"):  # the published name goes first, whatever is in it
        load_task(f"{name}@coop", "train", data_dir=tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_split_file(name, tmp_path):
    write_set(tmp_path, name)
    path = tmp_path / PUBLISHED[name].split_file
    path.rename(path.with_name("other.txt"))
    sentence = f"{name} is not in '{tmp_path}' ('{path}' is missing); see 'python download_datasets.py --list {name} "
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_task(f"{name}@coop", "train", data_dir=tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_images(name, tmp_path):
    write_split(tmp_path, name)
    with pytest.raises(UserError, match=rf"^{name} is not in .* is missing\); (get it with|see) 'python download_datasets"):
        load_task(f"{name}@coop", "train", data_dir=tmp_path)


def entry(**changed):
    """A change of the first training entry of DTD: ``place``, ``label`` or ``name``."""

    def change(content):
        place, label, name = content["train"][0]
        content["train"][0] = [changed.get("place", place), changed.get("label", label), changed.get("name", name)]

    return change


def repeat(split):
    return lambda content: content[split].append(list(content["train"][0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content.pop("val"), "it is no object with the lists 'train', 'val' and 'test'"),
        (lambda content: content.update(test={}), "it is no object with the lists 'train', 'val' and 'test'"),
        (lambda content: content.update(train=[]), "it holds no image"),
        (lambda content: content["val"].append(["x.jpg", 1]), "its val entry ['x.jpg', 1] is not [path, label, class name]"),
        (lambda content: content["val"].append("x.jpg"), "its val entry 'x.jpg' is not"),
        (entry(label="2"), "its train entry ['zigzagged/zigzagged_0001.jpg', '2', 'zigzagged'] is not"),
        (entry(label=True), "its train entry ['zigzagged/zigzagged_0001.jpg', True, 'zigzagged'] is not"),
        (entry(place=None), "its train entry [None, 2, 'zigzagged'] is not"),
        (entry(name=7), "its train entry ['zigzagged/zigzagged_0001.jpg', 2, 7] is not"),
        (entry(place="/etc/a.jpg"), "it lists '/etc/a.jpg', which is no path below the folder of images"),
        (entry(place="../a.jpg"), "it lists '../a.jpg', which is no path"),
        (entry(place="banded/../../a.jpg"), "it lists 'banded/../../a.jpg', which is no path"),
        (entry(place=""), "it lists '', which is no path"),
        (entry(place="a\0.jpg"), r"it lists 'a\x00.jpg', which is no path"),
        (repeat("train"), "it lists 'zigzagged/zigzagged_0001.jpg' 2 times"),
        (repeat("test"), "it lists 'zigzagged/zigzagged_0001.jpg' 2 times"),
        (entry(label=0), "it gives label 0 two class names, 'zigzagged' and 'banded'"),
        (entry(name="dotted"), "it gives label 2 two class names, 'dotted' and 'zigzagged'"),
        (entry(name=" "), "it gives label 2 no class name"),
        (entry(label=4, name="dotted"), "its labels have 4 where 3 is due, since they count from 0 without a gap"),
        (entry(label=-1, name="dotted"), "its labels have -1 where 0 is due"),
    ],
)
def test_a_damaged_split_file(change, sentence, tmp_path):
    write_set(tmp_path, "DTD")
    content = split_of(PUBLISHED["DTD"])
    change(content)
    path = write_split(tmp_path, "DTD", content)
    with pytest.raises(UserError, match="^" + re.escape(f"'{path}' is damaged: {sentence}")):
        load_task("DTD@coop", "train", data_dir=tmp_path)


@pytest.mark.parametrize("text", ["", '{"train": [["a.jpg", 0', "[1, 2]", "null"])
def test_a_torn_split_file(text, tmp_path):
    write_set(tmp_path, "DTD")
    path = tmp_path / PUBLISHED["DTD"].split_file
    path.write_text(text)
    with pytest.raises(UserError, match=f"'{re.escape(str(path))}' is (not readable JSON|damaged)"):
        load_task("DTD@coop", "train", data_dir=tmp_path)


def test_names_without_a_breed_are_refused(tmp_path):
    content = {split: [[f"{split}.jpg", 0, "Shih"]] for split in SPLITS}
    write_split(tmp_path, "StanfordDogs", content)
    (tmp_path / "stanford_dogs/Images").mkdir()
    with pytest.raises(UserError, match="it gives label 0 no class name"):
        load_task("StanfordDogs@coop", "train", data_dir=tmp_path)


def test_aircraft_has_one_division(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nDash 8-100\n")
    for number, split in enumerate(SPLITS):
        (folder / f"images_variant_{split}.txt").write_text(f"100{number} Dash 8-100\n200{number} 707-320\n")
        Image.new("RGB", (4, 4), (90,) * 3).save(folder / f"images/100{number}.jpg")
        Image.new("RGB", (4, 4), (30,) * 3).save(folder / f"images/200{number}.jpg")
    for number, split in enumerate(SPLITS):
        task, standard = (load_task(f"FGVCAircraft{convention}", split, data_dir=tmp_path) for convention in ("@coop", ""))
        assert task.sample_ids == [f"images/100{number}.jpg", f"images/200{number}.jpg"]
        assert (task.labels.tolist(), task.classnames) == ([1, 0], ("707-320", "Dash 8-100"))
        assert (task.split, task.fingerprint) == (split, standard.fingerprint)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder with one image of each of the 1000 classes for training and one for validation. Do not write to it."""
    data_dir = tmp_path_factory.mktemp("data")
    image = data_dir / "image.JPEG"
    Image.new("RGB", (4, 4), (200, 0, 0)).save(image)
    for split in ("train", "val"):
        for number, folder in enumerate(wordnet_ids()):
            (data_dir / "imagenet/images" / split / folder).mkdir(parents=True)
            (data_dir / "imagenet/images" / split / folder / f"{split}_{number}.JPEG").hardlink_to(image)
    lines = [f"{folder} the {number}th thing" for number, folder in enumerate(wordnet_ids())]
    (data_dir / "imagenet/classnames.txt").write_text("\n".join(reversed(lines)) + "\n")
    return data_dir


def test_imagenet_is_validated_on_its_test_images(imagenet):
    train, val, test = (load_task("ImageNet@coop", split, data_dir=imagenet) for split in SPLITS)
    assert [task.split for task in (train, val, test)] == list(SPLITS)
    assert train.sample_ids[:2] == ["n01440764/train_0.JPEG", "n01443537/train_1.JPEG"]
    assert val.sample_ids == test.sample_ids == [f"{folder}/val_{number}.JPEG" for number, folder in enumerate(wordnet_ids())]
    assert train.labels.tolist() == val.labels.tolist() == list(range(1000))
    assert val.samples.image(0).size == (4, 4)


def test_imagenet_s_names_are_those_of_its_list(imagenet):
    assert load_task("ImageNet@coop", "val", data_dir=imagenet).classnames == tuple(f"the {number}th thing" for number in range(1000))
    assert load_task("ImageNet", "test", data_dir=imagenet).classnames == imagenet_classnames()


def test_imagenet_s_list_must_be_whole(imagenet, tmp_path):
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/images").symlink_to(imagenet / "imagenet/images")
    listed = tmp_path / "imagenet/classnames.txt"
    with pytest.raises(UserError, match=re.escape(f"ImageNet is not in '{tmp_path}' ('{listed}' is missing)")):
        load_task("ImageNet@coop", "test", data_dir=tmp_path)
    listed.write_text("n01440764 tench\n")
    with pytest.raises(UserError, match=re.escape(f"'{listed}' is damaged: it has no line for n01443537")):
        load_task("ImageNet@coop", "test", data_dir=tmp_path)
    listed.write_text("n01440764\n")
    with pytest.raises(UserError, match="has 1 of 2 columns"):
        load_task("ImageNet@coop", "test", data_dir=tmp_path)


def test_missing_imagenet(imagenet, tmp_path):
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/classnames.txt").write_text((imagenet / "imagenet/classnames.txt").read_text())
    with pytest.raises(UserError, match=r"ImageNet is not in .*imagenet/val' is missing"):
        load_task("ImageNet@coop", "val", data_dir=tmp_path)
