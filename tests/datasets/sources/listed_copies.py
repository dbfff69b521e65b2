"""Miniature copies of the data sets that lie as image files beside lists: the real layout and formats, a few images each.

``COPIES[name]`` says which images there are, in which order and of which class; ``write`` puts them on disk, with the lists
as the published archives have them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from datasets.facts import classnames
from datasets.sources.eurosat import FOLDERS as EUROSAT_FOLDERS

Images = Sequence[tuple[str, str]]  # (path relative to the data set's folder, class name), in the order of the split


@dataclass(frozen=True)
class Copy:
    """A miniature copy: the images of each split, and what writes the lists beside them."""

    folder: str
    splits: Mapping[str, Images]
    write_lists: Callable[[Path, Copy], None]

    def write(self, data_dir: Path) -> Path:
        """Write the copy below ``data_dir``; returns its folder."""
        root = data_dir / self.folder
        for images in self.splits.values():
            for path, _ in images:
                paint(root, path)
        self.write_lists(root, self)
        return root


def paint(root: Path, path: str) -> None:
    """A small image whose colour is decided by its path."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (7, 5), color(path)).save(root / path)


def color(path: str) -> tuple[int, int, int]:
    """What :func:`paint` paints."""
    red, green, blue, *_ = hashlib.sha256(path.encode()).digest()
    return red, green, blue


def text(path: Path, *lines: str, end: str = "\n") -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def cell(*texts: str) -> np.ndarray:
    """A MATLAB cell array, [N, 1]."""
    return np.array(texts, dtype=object).reshape(-1, 1)


def no_lists(root: Path, copy: Copy) -> None:
    """For data sets whose folders say everything."""


def listing(root: Path, copy: Copy, where: str, line: Callable[[str], str]) -> None:
    """Text lists ``where`` (with {split}) of lines made of the images' paths."""
    for split, images in copy.splits.items():
        text(root / where.format(split=split), *(line(path) for path, _ in images))


# --- MATLAB lists ------------------------------------------------------------------------------------------------


def car_annotations(path: Path, files: Sequence[str], labels: Sequence[int]) -> None:
    """A struct array with the members that the real file has."""
    members = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    annotations = np.zeros((1, len(files)), dtype=[(member, object) for member in members])
    for column, (file, label) in enumerate(zip(files, labels, strict=True)):
        annotations[0, column] = (np.uint16(39), np.uint16(116), np.uint16(569), np.uint16(375), np.uint8(label), file)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": annotations})


def cars_lists(root: Path, copy: Copy) -> None:
    names = classnames("stanford_cars")
    for split, file in {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}.items():
        images = copy.splits[split]
        car_annotations(root / file, [Path(path).name for path, _ in images], [names.index(car) + 1 for _, car in images])
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": cell(*names).T})


FLOWERS = {1: 77, 2: 1, 3: 102, 4: 1, 5: 51, 6: 2, 7: 13}  # number of an image: its class, from 1
FLOWER_SETS = {"train": (6, 2), "val": (7, 3), "test": (4, 1, 5)}


def flowers_lists(root: Path, copy: Copy) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([list(FLOWERS.values())], dtype=np.uint8)})
    numbers = {split: np.array([FLOWER_SETS[split]], dtype=np.uint16) for split in FLOWER_SETS}
    savemat(root / "setid.mat", {"trnid": numbers["train"], "valid": numbers["val"], "tstid": numbers["test"]})


DOG_FOLDERS = ("n02085620-Chihuahua", "n02088364-flat-coated_retriever", "n02110806-basenji", "n02116738-African_hunting_dog")


def dogs_lists(root: Path, copy: Copy) -> None:
    for split, images in copy.splits.items():
        files = [path.removeprefix("Images/") for path, _ in images]
        labels = np.array([[DOG_FOLDERS.index(file.split("/")[0]) + 1] for file in files], dtype=np.float64)
        annotations = cell(*(file.removesuffix(".jpg") for file in files))
        savemat(root / f"{split}_list.mat", {"file_list": cell(*files), "annotation_list": annotations, "labels": labels})


# --- text lists --------------------------------------------------------------------------------------------------


def dtd_lists(root: Path, copy: Copy) -> None:
    listing(root, copy, "labels/{split}1.txt", lambda path: path.removeprefix("images/"))


def resisc_lists(root: Path, copy: Copy) -> None:
    listing(root, copy, "resisc45-{split}.txt", lambda path: Path(path).name)


def sun_lists(root: Path, copy: Copy) -> None:
    for split, file in {"train": "Training_01.txt", "test": "Testing_01.txt"}.items():
        text(root / file, *(path.removeprefix("SUN397") for path, _ in copy.splits[split]))
    text(root / "ClassName.txt", "/a/abbey", "/a/apartment_building/outdoor", "/j/jail/indoor", "/j/jail_cell")


def food_lists(root: Path, copy: Copy) -> None:
    listing(root, copy, "meta/{split}.txt", lambda path: path.removeprefix("images/").removesuffix(".jpg"))
    text(root / "meta" / "classes.txt", *(name.replace(" ", "_") for name in classnames("food101")))


def pets_lists(root: Path, copy: Copy) -> None:
    names = classnames("oxford_iiit_pet")
    for split, file in {"train": "trainval.txt", "test": "test.txt"}.items():
        lines = [f"{Path(path).stem} {names.index(breed) + 1} 2 1" for path, breed in copy.splits[split]]
        text(root / "annotations" / file, *lines)


def aircraft_lists(root: Path, copy: Copy) -> None:
    text(root / "variants.txt", "707-320", "727-200", "DC-10", "F/A-18", "Model B200", "Spitfire")
    for split, images in copy.splits.items():
        text(root / f"images_variant_{split}.txt", *(f"{Path(path).stem} {variant}" for path, variant in images))


def ucf_lists(root: Path, copy: Copy) -> None:
    lists = root / "ucfTrainTestlist"
    text(lists / "classInd.txt", "1 ApplyEyeMakeup", "2 HandstandPushups", "3 YoYo", end="\r\n")
    order = ["Apply Eye Makeup", "Handstand Pushups", "Yo Yo"]
    for split, images in copy.splits.items():
        videos = [f"{action.replace(' ', '')}/{Path(path).stem}.avi" for path, action in images]
        numbers = [f" {order.index(action) + 1}" if split == "train" else "" for _, action in images]
        text(lists / f"{split}list01.txt", *map("".join, zip(videos, numbers, strict=True)), end="\r\n")


BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")


def cub_lists(root: Path, copy: Copy) -> None:
    """The images of both splits are listed together, sorted."""
    images = sorted((path.removeprefix("images/"), split) for split, of_split in copy.splits.items() for path, _ in of_split)
    numbered = list(enumerate(images, start=1))
    text(root / "images.txt", *(f"{number} {path}" for number, (path, _) in numbered))
    text(root / "image_class_labels.txt", *(f"{number} {BIRDS.index(path.split('/')[0]) + 1}" for number, (path, _) in numbered))
    text(root / "train_test_split.txt", *(f"{number} {int(split == 'train')}" for number, (_, split) in numbered))
    text(root / "classes.txt", *(f"{number} {bird}" for number, bird in enumerate(BIRDS, start=1)))


def gtsrb_lists(root: Path, copy: Copy) -> None:
    names = classnames("gtsrb")
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{Path(path).name};7;5;1;1;6;4;{names.index(sign)}" for path, sign in copy.splits["test"]]
    text(root / "GT-final_test.csv", header, *rows, end="\r\n")
    for label in range(43):
        text(root / f"GTSRB/Training/{label:05d}/GT-{label:05d}.csv", header)


COPIES = {
    "Cars": Copy(
        "stanford_cars",
        {
            "train": [
                ("cars_train/00001.jpg", "Audi TTS Coupe 2012"),
                ("cars_train/00002.jpg", "Acura TL Sedan 2012"),
                ("cars_train/00003.jpg", "smart fortwo Convertible 2012"),
            ],
            "test": [("cars_test/00001.jpg", "AM General Hummer SUV 2000"), ("cars_test/00002.jpg", "Suzuki Aerio Sedan 2007")],
        },
        cars_lists,
    ),
    "Flowers102": Copy(
        "oxford_flowers",
        {
            split: [(f"jpg/image_{number:05d}.jpg", classnames("flower102")[FLOWERS[number] - 1]) for number in numbers]
            for split, numbers in FLOWER_SETS.items()
        },
        flowers_lists,
    ),
    "StanfordDogs": Copy(
        "stanford_dogs",
        {
            "train": [
                ("Images/n02085620-Chihuahua/n02085620_5927.jpg", "Chihuahua"),
                ("Images/n02110806-basenji/n02110806_1.jpg", "basenji"),
                ("Images/n02088364-flat-coated_retriever/n02088364_7.jpg", "flat-coated retriever"),
                ("Images/n02116738-African_hunting_dog/n02116738_3.jpg", "African hunting dog"),
            ],
            "test": [
                ("Images/n02116738-African_hunting_dog/n02116738_4.jpg", "African hunting dog"),
                ("Images/n02085620-Chihuahua/n02085620_1.jpg", "Chihuahua"),
            ],
        },
        dogs_lists,
    ),
    "DTD": Copy(
        "dtd",
        {
            "train": [("images/banded/banded_0002.jpg", "banded"), ("images/polka-dotted/polka-dotted_0001.jpg", "polka-dotted")],
            "val": [("images/zigzagged/zigzagged_0010.jpg", "zigzagged"), ("images/banded/banded_0005.jpg", "banded")],
            "test": [("images/banded/banded_0001.jpg", "banded")],
        },
        dtd_lists,
    ),
    "RESISC45": Copy(
        "resisc45",
        {
            "train": [
                ("NWPU-RESISC45/baseball_diamond/baseball_diamond_001.jpg", "baseball diamond"),
                ("NWPU-RESISC45/airplane/airplane_300.jpg", "airplane"),
            ],
            "val": [("NWPU-RESISC45/railway_station/railway_station_002.jpg", "railway station")],
            "test": [("NWPU-RESISC45/wetland/wetland_700.jpg", "wetland"), ("NWPU-RESISC45/railway/railway_001.jpg", "railway")],
        },
        resisc_lists,
    ),
    "SUN397": Copy(
        "sun397",
        {
            "train": [
                ("SUN397/j/jail/indoor/sun_abc.jpg", "jail indoor"),
                ("SUN397/j/jail_cell/sun_abd.jpg", "jail cell"),
                ("SUN397/a/abbey/sun_aaa.jpg", "abbey"),
            ],
            "test": [
                ("SUN397/a/apartment_building/outdoor/sun_x.jpg", "apartment building outdoor"),
                ("SUN397/t/theater/indoor_seats/sun_y.jpg", "theater indoor seats"),
            ],
        },
        sun_lists,
    ),
    "Food101": Copy(
        "food-101",
        {
            "train": [("images/waffles/7.jpg", "waffles"), ("images/apple_pie/1005649.jpg", "apple pie")],
            "test": [("images/hot_and_sour_soup/12.jpg", "hot and sour soup")],
        },
        food_lists,
    ),
    "OxfordPets": Copy(
        "oxford_pets",
        {
            "train": [
                ("images/Abyssinian_100.jpg", "abyssinian"),
                ("images/american_bulldog_1.jpg", "american bulldog"),
                ("images/yorkshire_terrier_9.jpg", "yorkshire terrier"),
            ],
            "test": [("images/Egyptian_Mau_2.jpg", "egyptian mau"), ("images/Abyssinian_101.jpg", "abyssinian")],
        },
        pets_lists,
    ),
    "FGVCAircraft": Copy(
        "fgvc_aircraft",
        {
            "train": [("images/1025794.jpg", "707-320"), ("images/1340192.jpg", "Model B200")],
            "val": [("images/0481847.jpg", "F/A-18")],
            "test": [("images/1514522.jpg", "Spitfire"), ("images/0747566.jpg", "DC-10")],
        },
        aircraft_lists,
    ),
    "UCF101": Copy(
        "ucf101",
        {
            "train": [
                ("UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c01.jpg", "Apply Eye Makeup"),
                ("UCF-101-midframes/Handstand_Pushups/v_HandStandPushups_g08_c02.jpg", "Handstand Pushups"),
            ],
            "test": [("UCF-101-midframes/Yo_Yo/v_YoYo_g01_c01.jpg", "Yo Yo")],
        },
        ucf_lists,
    ),
    "CUB": Copy(
        "CUB_200_2011",
        {
            "train": [
                ("images/001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", "Black footed Albatross"),
                ("images/200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg", "Common Yellowthroat"),
            ],
            "test": [
                ("images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", "Black footed Albatross"),
                ("images/002.Laysan_Albatross/Laysan_Albatross_0001_545.jpg", "Laysan Albatross"),
            ],
        },
        cub_lists,
    ),
    "GTSRB": Copy(
        "gtsrb",
        {
            "train": [
                (f"GTSRB/Training/{label:05d}/00000_{number:05d}.ppm", sign)
                for label, sign in enumerate(classnames("gtsrb"))
                for number in range(2)
            ],
            "test": [
                ("GTSRB/Final_Test/Images/00000.ppm", "red and white circle no truck entry"),
                ("GTSRB/Final_Test/Images/00001.ppm", "stop"),
            ],
        },
        gtsrb_lists,
    ),
    "RenderedSST2": Copy(
        "rendered-sst2",
        {
            split: [(f"{folder}/{review}/{number}.png", review) for review in ("negative", "positive") for number in numbers]
            for split, folder, numbers in (("train", "train", "0123"), ("val", "valid", "12"), ("test", "test", "12"))
        },
        no_lists,
    ),
    "PlantDoc": Copy(
        "plantdoc",
        {
            "train": [
                ("train/Apple Scab Leaf/1.jpg", "Apple Scab Leaf"),
                ("train/Bell_pepper leaf/a%20b.JPG", "Bell pepper leaf"),
                ("train/Bell_pepper leaf/b.png", "Bell pepper leaf"),
                ("train/grape leaf/1.jpg", "grape leaf"),
            ],
            "test": [("test/Bell_pepper leaf/1.jpeg", "Bell pepper leaf"), ("test/grape leaf/1.jpg", "grape leaf")],
        },
        no_lists,
    ),
    "EuroSAT": Copy(
        "eurosat",
        {
            split: [
                (f"EuroSAT_splits/{split}/{folder}/{folder}_{number}.jpg", name)
                for folder, name in zip(EUROSAT_FOLDERS, classnames("eurosat"), strict=True)
                for number in numbers
            ]
            for split, numbers in (("train", "123"), ("val", "4"), ("test", "56"))
        },
        no_lists,
    ),
}
