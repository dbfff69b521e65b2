"""FER2013 on a miniature in the three forms in which it is passed on; torchvision reads the same files."""

import numpy as np
import pytest
import torchvision

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.array_files import assert_holds, noise, write, write_csv

PIXELS = noise(24, 48, 48)
EMOTIONS = np.r_[np.arange(20) % 7, 3, 5, 4, 6]  # as the files number them
USAGES = ["Training"] * 9 + ["PublicTest", "PrivateTest"] + ["Training"] * 11 + ["PrivateTest", "PublicTest"]
TRAIN = [row for row, usage in enumerate(USAGES) if usage == "Training"]
TEST = [row for row, usage in enumerate(USAGES) if usage != "Training"]
TEXTS = [" ".join(map(str, image.ravel())) for image in PIXELS]
NAMES = {0: "angry", 1: "disgusted", 2: "fearful", 3: "happy", 4: "sad", 5: "surprised", 6: "neutral"}


def write_fer2013(folder):
    write_csv(folder / "fer2013.csv", [("emotion", "pixels", "Usage"), *zip(EMOTIONS, TEXTS, USAGES, strict=True)])


def write_icml(folder):
    write_csv(folder / "icml_face_data.csv", [("emotion", " Usage", " pixels"), *zip(EMOTIONS, USAGES, TEXTS, strict=True)])


def write_kaggle(folder, test_header=("emotion", "pixels")):
    write_csv(folder / "train.csv", [("emotion", "pixels"), *((EMOTIONS[row], TEXTS[row]) for row in TRAIN)])
    rows = [(EMOTIONS[row], TEXTS[row])[-len(test_header) :] for row in TEST]
    write_csv(folder / "test.csv", [test_header, *rows])


FORMS = [write_fer2013, write_icml, write_kaggle]


def test_all_forms_are_the_same_task(tmp_path):
    for number, form in enumerate(FORMS):
        form(tmp_path / str(number) / "fer2013")
    for split, rows in {"train": TRAIN, "test": TEST}.items():
        tasks = [load_task("FER2013", split, data_dir=tmp_path / str(number)) for number in range(len(FORMS))]
        assert len({task.fingerprint for task in tasks}) == 1
        assert len(tasks[0]) == {"train": 18, "test": 4}[split]
        own = [int(sample_id.rpartition("-")[2]) for sample_id in tasks[0].sample_ids]
        assert [tasks[0].classnames[label] for label in tasks[0].labels] == [NAMES[EMOTIONS[rows[place]]] for place in own]


def test_class_names_are_by_the_alphabet(tmp_path):
    write_fer2013(tmp_path / "fer2013")
    task = load_task("FER2013", "test", data_dir=tmp_path)
    assert list(task.classnames) == sorted(NAMES.values())
    assert_holds(task, PIXELS[TEST], np.array([sorted(NAMES.values()).index(NAMES[EMOTIONS[row]]) for row in TEST]))
    assert task.sample_ids[3] == "fer2013-test-000003"


@pytest.mark.parametrize("form", [write_fer2013, write_icml])
def test_as_torchvision_reads_it(form, tmp_path, monkeypatch):
    form(tmp_path / "fer2013")
    monkeypatch.setattr(torchvision.datasets.fer2013, "check_integrity", lambda *_args, **_kwargs: True)  # other checksums
    other, task = torchvision.datasets.FER2013(tmp_path, split="test"), load_task("FER2013", "test", data_dir=tmp_path)
    assert len(other) == len(task)
    for index, (image, emotion) in enumerate(other):
        assert image.convert("RGB").tobytes() == task.samples.image(index).tobytes()
        assert NAMES[emotion] == task.classnames[task.labels[index]]


def test_the_competitions_test_file_has_no_labels(tmp_path):
    write_kaggle(tmp_path / "fer2013", test_header=("pixels",))
    assert len(load_task("FER2013", "train", data_dir=tmp_path)) == 18
    with pytest.raises(UserError, match=r"test.csv' has no labels, .*; put fer2013.csv or icml_face_data.csv beside it"):
        load_task("FER2013", "test", data_dir=tmp_path)
    write_icml(tmp_path / "fer2013")
    assert len(load_task("FER2013", "test", data_dir=tmp_path)) == 4


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"^FER2013 is not in .*fer2013/fer2013.csv' is missing.*download_datasets.py .*FER2013 "):
        load_task("FER2013", "test", data_dir=tmp_path)


HEADER = ("emotion", "pixels", "Usage")
TEXT = TEXTS[0]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("emotion", "Usage"), (1, "PublicTest")], "has no column 'pixels'"),
        ([], "has no column 'pixels'"),
        ([HEADER], "holds no image of the test split of FER2013"),
        ([HEADER, (1, TEXT, "Training")], "holds no image of the test split of FER2013"),
        ([HEADER, (1, TEXT, "PublicTest"), (1, TEXT[:-9], "PublicTest")], "line 3: pixels are not 2304 numbers from 0 to 255"),
        ([HEADER, (1, TEXT + " 0", "PublicTest")], "line 2: pixels are not 2304 numbers"),
        ([HEADER, (1, TEXT.rpartition(" ")[0] + " 256", "PublicTest")], "line 2: pixels are not"),
        ([HEADER, (1, "x " + TEXT, "PublicTest")], "line 2: pixels are not"),
        ([HEADER, (1, "", "PublicTest")], "line 2: pixels are not"),
        ([HEADER, (7, TEXT, "PublicTest")], "line 2: the emotion '7' is not a number from 0 to 6"),
        ([("emotion", "Usage", "pixels"), (1, "PublicTest")], "line 2: pixels are not"),
    ],
)
def test_damaged(rows, sentence, tmp_path):
    path = write_csv(tmp_path / "fer2013/fer2013.csv", rows)
    with pytest.raises(UserError, match=sentence) as caught:
        load_task("FER2013", "test", data_dir=tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"PK\x03\x04\x85\x00"])
def test_no_text(data, tmp_path):
    write(tmp_path / "fer2013/fer2013.csv", data)
    with pytest.raises(UserError, match=r"Cannot read '.*fer2013.csv' as CSV: .*"):
        load_task("FER2013", "test", data_dir=tmp_path)
