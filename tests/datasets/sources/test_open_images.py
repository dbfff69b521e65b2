"""Open Images as a training source: tables as the released code reads them, and a few other spellings."""

import csv

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from datasets.samples import UnreadableImage

ROWS = [
    ("000a1249af2bc5f0", "Tree", "train"),
    ("00a159a661a2f5aa", "Human face", "test"),
    ("00021f0a8b8b9b1b", "Tree", "validation"),
    ("0e9b1e1f1c1d1a1b", "Bicycle, wheel", "train"),
    ("0f0f0f0f0f0f0f0f", "Human face", "train"),
    ("000a1249af2bc5f0", "Bicycle, wheel", "train"),  # an image of two classes
]
HEADER = ("ImageID", "DisplayName", "type")


def write_table(path, header=HEADER, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def data(tmp_path):
    write_table(tmp_path / "openimages/oi_data.csv")
    (tmp_path / "openimages/images").mkdir()
    for number, (image_id, _, _) in enumerate(ROWS[:5]):
        Image.new("RGB", (8, 6), (50 * number, 200, 30)).save(tmp_path / f"openimages/images/{image_id}.jpg", quality=95)
    return tmp_path


def load(data, split="train", val_p=0.2):
    return load_task("OpenImages", split, data_dir=data, val_p=val_p)


def whole(data):
    """The images of train and val in the order of the table."""
    from datasets.sources.open_images import open_images_task

    return open_images_task("OpenImages", "train", data)


def test_all_rows_in_order_whatever_their_type(data):
    task = whole(data)
    assert task.sample_ids == [f"{image_id}.jpg" for image_id, _, _ in ROWS]
    assert task.classnames == ("Tree", "Human face", "Bicycle, wheel")
    assert task.labels.tolist() == [0, 1, 0, 2, 1, 2]
    assert task.labels.dtype == np.int64
    assert task.templates == ("a photo of a {c}.",)


def test_pixels(data):
    assert np.abs(np.asarray(whole(data).samples.image(3)).astype(int) - (150, 200, 30)).max() < 6


def test_validation_is_drawn(data):
    train, val = load(data), load(data, "val")
    assert (len(train), len(val)) == (5, 1)
    assert sorted(train.sample_ids + val.sample_ids) == sorted(whole(data).sample_ids)
    assert train.classnames == val.classnames == whole(data).classnames


def test_the_fingerprint_follows_table_and_images(data):
    before = load(data)
    assert load(data).fingerprint == before.fingerprint
    Image.new("RGB", (8, 6)).save(data / f"openimages/images/{before.sample_ids[0]}")
    assert load(data).fingerprint != before.fingerprint
    write_table(data / "openimages/oi_data.csv", rows=[(image_id, f"{label}s", kind) for image_id, label, kind in ROWS[::-1]])
    assert load(data).listing != before.listing


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (("id", "label", "type"), ROWS),
        (("type", "Class", "IMAGE_ID"), [(kind, label, f"{image_id}.jpg") for image_id, label, kind in ROWS]),
        (("\ufeffImageID", " DisplayName", "type"), [(f" {image_id}", f"{label} ", kind) for image_id, label, kind in ROWS]),
    ],
)
def test_other_spellings(data, header, rows):
    before = whole(data)
    write_table(data / "openimages/oi_data.csv", header, rows)
    assert (whole(data).fingerprint, whole(data).classnames) == (before.fingerprint, before.classnames)


def test_train_csv_comes_first(data):
    write_table(data / "openimages/train.csv", rows=ROWS[:3])
    assert len(whole(data)) == 3


def test_several_tables(data):
    write_table(data / "openimages/more.csv")
    with pytest.raises(UserError, match=r"has several tables, 'more\.csv' and 'oi_data\.csv'; name the one to use train\.csv\."):
        load(data)


def test_training_only(data):
    with pytest.raises(UserError, match="OpenImages is for training adapters and has no test split"):
        load(data, "test")


@pytest.mark.parametrize("absent", ["oi_data.csv", "images"])
def test_absent(data, absent):
    (data / "openimages" / absent).rename(data / "elsewhere")
    wanted = "train.csv" if absent == "oi_data.csv" else absent
    with pytest.raises(UserError, match=rf"OpenImages is not in .*openimages/{wanted}' is missing\); .* 'python download_datasets\.py"):
        load(data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "lists no image"),
        ("ImageID,DisplayName\n", "lists no image"),
        ("ImageID,name\na,Tree\n", r"has no column DisplayName \(its columns: ImageID, name\)"),
        ("file,label\na,Tree\n", r"has no column ImageID \(its columns: file, label\)"),
        ("ImageID,DisplayName,type\na,Tree,train\nb,Fa", "number of cells is not that of its header line"),
        ("ImageID,DisplayName\na,Tree\n,Face\n", r"Row 2 of .* has no ImageID\."),
        ("ImageID,DisplayName\na,Tree\nb, \n", r"Row 2 of .* has no DisplayName\."),
        ("ImageID,DisplayName\na,Tree\nb,Tree\n", "has only one class, 'Tree'"),
    ],
)
def test_tables_that_will_not_do(data, content, said):
    (data / "openimages/oi_data.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        load(data)


def test_an_absent_image_is_an_unreadable_one(data):
    (data / f"openimages/images/{ROWS[2][0]}.jpg").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        whole(data).samples.image(2)
