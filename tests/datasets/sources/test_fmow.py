"""FMoW on a small copy in WILDS' layout: its table read by hand, and ``wilds`` itself, say what must come out."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from datasets.samples import UnreadableImage
from datasets.sources.fmow import wilds_module
from tests.datasets.sources.small_fmow import CATEGORIES, COUNTRIES, YEARS, color_of, write_fmow

ROOT = Path(__file__).parents[3]
REGIONS = {code: region for _, _, code, region in COUNTRIES}
EXPECTED = {
    ("FMoW-id", "train"): ("train", "id"),
    ("FMoW-id", "val"): ("val", "id"),
    ("FMoW-id", "test"): ("test", "id"),
    ("FMoW-ood", "train"): ("train", "id"),
    ("FMoW-ood", "val"): ("val", "between"),
    ("FMoW-ood", "test"): ("test", "ood"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """(data folder, rows of its table). Do not write to it."""
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, write_fmow(data_dir)


@pytest.fixture
def spoilt(copy, tmp_path):
    """FMoW's folder in a data folder that a test may spoil."""
    shutil.copytree(copy[0] / "fmow_v1.1", tmp_path / "fmow_v1.1")
    return tmp_path / "fmow_v1.1"


@pytest.mark.parametrize(("name", "split"), EXPECTED)
def test_the_splits_are_those_of_the_table(copy, name, split):
    data_dir, rows = copy
    task = load_task(name, split, data_dir=data_dir)
    wanted = [number for number, row in enumerate(rows) if (row["split"], YEARS[row["timestamp"]]) == EXPECTED[name, split]]
    assert task.sample_ids == [f"images/rgb_img_{number}.png" for number in wanted]
    assert [task.classnames[label] for label in task.labels] == [rows[number]["category"].replace("_", " ") for number in wanted]
    regions = [REGIONS.get(rows[number]["country_code"], "Other") for number in wanted]
    assert [task.groups.names[label] for label in task.groups.labels] == regions
    assert (task.name, task.split, task.groups.kind) == (name, split, "region")


@pytest.mark.parametrize(("name", "key"), [("FMoW-id", "id_test"), ("FMoW-ood", "test")])
def test_everything_is_as_wilds_gives_it(copy, name, key):
    task = load_task(name, "test", data_dir=copy[0])
    subset = wilds_module().FMoWDataset(root_dir=str(copy[0])).get_subset(key)
    assert len(task) == len(subset) > 20
    for index, (image, label, metadata) in enumerate(subset):
        assert np.array_equal(np.asarray(task.samples.image(index)), np.asarray(image))
        assert task.labels[index] == label
        assert task.groups.labels[index] == metadata[0]


def test_the_classes_are_those_of_wilds(copy):
    task = load_task("FMoW-id", "test", data_dir=copy[0])
    assert task.classnames == tuple(name.replace("_", " ") for name in wilds_module().categories)
    assert len(task.classnames) == 62
    assert "race track" in task.classnames
    assert {task.classnames[label] for label in task.labels} == {name.replace("_", " ") for name in CATEGORIES}
    assert set(task.groups.names) == {"Asia", "Europe", "Africa", "Americas", "Oceania", "Other"}
    assert task.templates == ("a satellite image of a {c}",)


def test_pixels_and_fingerprint(copy):
    task = load_task("FMoW-ood", "test", data_dir=copy[0])
    number = int(task.sample_ids[7].removeprefix("images/rgb_img_").removesuffix(".png"))
    assert task.samples.image(7).getpixel((3, 3)) == color_of(number)
    assert load_task("FMoW-ood", "test", data_dir=copy[0]).fingerprint == task.fingerprint
    assert load_task("FMoW-id", "test", data_dir=copy[0]).fingerprint != task.fingerprint


def test_both_train_on_the_same_images(copy):
    one, other = (load_task(name, "train", data_dir=copy[0]) for name in ("FMoW-id", "FMoW-ood"))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("file", ["RELEASE_v1.1.txt", "rgb_metadata.csv", "country_code_mapping.csv", "images"])
def test_something_is_absent(spoilt, file):
    (spoilt / file).rename(spoilt / "elsewhere")
    with pytest.raises(UserError, match=rf"FMoW-id is not in .*{file}' is missing\); .* 'python download_datasets\.py"):
        load_task("FMoW-id", "test", data_dir=spoilt.parent)


def test_no_folder_is_made(tmp_path):
    with pytest.raises(UserError, match="FMoW-ood is not in"):
        load_task("FMoW-ood", "test", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("file", ["rgb_metadata.csv", "country_code_mapping.csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_a_table_of_something_else(spoilt, file, content):
    (spoilt / file).write_bytes(content)
    with pytest.raises(UserError, match=r"The tables of FMoW in .* are not as WILDS published them \(.*\); unpack"):
        load_task("FMoW-id", "test", data_dir=spoilt.parent)


@pytest.mark.parametrize(("cut", "said"), [(30, "is incomplete"), (60, "The tables of FMoW in")])
def test_a_torn_table(spoilt, cut, said):
    """Cut within a line, behind the category or before it: wilds takes an image without a time for an early one."""
    table = spoilt / "rgb_metadata.csv"
    table.write_bytes(table.read_bytes().rstrip()[:-cut])
    with pytest.raises(UserError, match=said):
        load_task("FMoW-id", "test", data_dir=spoilt.parent)


def test_a_table_that_lacks_its_last_rows(spoilt):
    table = spoilt / "rgb_metadata.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(UserError, match=r"rgb_metadata\.csv' is incomplete: .* unpack the archive again"):
        load_task("FMoW-ood", "test", data_dir=spoilt.parent)


def test_an_unknown_category(spoilt):
    table = spoilt / "rgb_metadata.csv"
    table.write_text(table.read_text().replace("zoo,", "moon_base,", 1))
    with pytest.raises(UserError, match=r"\('moon_base'\)"):
        load_task("FMoW-id", "test", data_dir=spoilt.parent)


def test_a_split_without_images(spoilt):
    table = spoilt / "rgb_metadata.csv"
    table.write_text(table.read_text().replace("\ntest,", "\nval,"))
    with pytest.raises(UserError, match="lists no image of the test split of FMoW-ood"):
        load_task("FMoW-ood", "test", data_dir=spoilt.parent)


def test_an_absent_image_is_an_unreadable_one(spoilt):
    task = load_task("FMoW-id", "test", data_dir=spoilt.parent)
    task.samples.path(2).unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        load_task("FMoW-id", "test", data_dir=spoilt.parent).samples.image(2)


def test_a_table_that_is_a_folder(spoilt):
    (spoilt / "country_code_mapping.csv").unlink()
    (spoilt / "country_code_mapping.csv").mkdir()
    with pytest.raises(UserError, match=r"The tables of FMoW in .* are not as WILDS published them .*Is a directory"):
        load_task("FMoW-id", "test", data_dir=spoilt.parent)


def test_wilds_is_quiet_and_harmless(copy):
    """In a process of its own, where wilds is imported for the first time: no thread, no word, no lifted limit."""
    code = f"""
import sys, threading
from pathlib import Path
from PIL import Image
from datasets.registry import load_task
limit = Image.MAX_IMAGE_PIXELS
load_task("FMoW-id", "test", data_dir=Path({str(copy[0])!r}))
print(threading.active_count(), limit == Image.MAX_IMAGE_PIXELS, "outdated" in sys.modules, "wilds" in sys.modules)
print(sys.modules["datasets"].__file__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["1 True False True", str(ROOT / "datasets/__init__.py")]
    assert done.stderr == ""


def test_without_the_package(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "wilds.datasets", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    with pytest.raises(UserError, match="install it with 'pip install wilds'"):
        load_task("FMoW-id", "test", data_dir=copy[0])
    assert Image.MAX_IMAGE_PIXELS == 12345
