"""Data sets of image files beside lists: what holds for all of them, and what a torn or missing file is told as."""

import shutil

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.registry import SOURCES, load_task
from datasets.sources.listed import folders_in, images_in, listed_task, rows, whole_number
from tests.datasets.sources.listed_copies import COPIES, color, text

OWN_VALIDATION = [name for name, copy in COPIES.items() if "val" in copy.splits]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """All copies; do not write to it."""
    folder = tmp_path_factory.mktemp("data")
    for copy in COPIES.values():
        copy.write(folder)
    return folder


@pytest.fixture(params=COPIES)
def name(request):
    return request.param


@pytest.fixture
def own_copy(tmp_path, name):
    """A copy to write to: (its data_dir, its folder)."""
    return tmp_path, COPIES[name].write(tmp_path)


def load(name, split, data_dir):
    return load_task(name, split, data_dir=data_dir, val_p=0.5)


# --- what every loader does ----------------------------------------------------------------------------------------


def test_own_validation_is_where_the_table_says_so():
    assert [name for name in COPIES if next(iter(SOURCES[name].values())).own_validation] == OWN_VALIDATION


def test_images_and_classes_in_the_order_of_the_lists(name, data_dir):
    for split, images in COPIES[name].splits.items():
        if split == "train" and name not in OWN_VALIDATION:
            continue  # the registry draws its validation part; see the next test
        task = load(name, split, data_dir)
        in_splits = [(path.removeprefix("EuroSAT_splits/"), classname) for path, classname in images]
        assert [(path, task.classnames[label]) for path, label in zip(task.sample_ids, task.labels, strict=True)] == in_splits
        assert (task.name, task.split, task.labels.dtype) == (name, split, np.int64)


def test_train_and_val_are_what_the_training_list_holds(name, data_dir):
    train, val, test = (load(name, split, data_dir) for split in ("train", "val", "test"))
    ids = train.sample_ids + val.sample_ids
    parts = {split: [path.removeprefix("EuroSAT_splits/") for path, _ in images] for split, images in COPIES[name].splits.items()}
    assert sorted(ids) == sorted(parts["train"] + parts.get("val", []))
    assert len({*ids, *test.sample_ids}) == len(ids) + len(test)
    assert train.classnames == val.classnames == test.classnames
    assert len(set(train.classnames)) == len(train.classnames)
    assert train.templates == val.templates == test.templates


def test_pixels_are_those_of_the_file(name, data_dir):
    for split in ("train", "test"):
        task, root = load(name, split, data_dir), data_dir / COPIES[name].folder
        root = root / "EuroSAT_splits" if name == "EuroSAT" else root
        for index in {0, len(task) - 1}:
            image, file = task.samples.image(index), root / task.sample_ids[index]
            assert np.array_equal(image, Image.open(file).convert("RGB"))
            path = file.relative_to(data_dir / COPIES[name].folder).as_posix()
            assert np.abs(np.asarray(image).mean(axis=(0, 1)) - color(path)).max() < 12  # lossy, but this image and no other


def test_fingerprint_is_the_same_elsewhere_and_heeds_nothing_beside_the_images(name, data_dir, own_copy):
    elsewhere, folder = own_copy
    (folder / "README.txt").write_text("beside")
    (folder / "another folder").mkdir()
    for split in ("train", "test"):
        assert load(name, split, elsewhere).fingerprint == load(name, split, data_dir).fingerprint


def test_fingerprint_changes_with_an_image_s_content(name, own_copy):
    data_dir, folder = own_copy
    before, path = load(name, "test", data_dir), COPIES[name].splits["test"][-1][0]
    fingerprint = before.fingerprint
    with (folder / path).open("ab") as file:
        file.write(b"\0")
    after = load(name, "test", data_dir)
    assert after.fingerprint != fingerprint
    assert after.listing == before.listing


@pytest.mark.parametrize("name", ["OxfordPets"])
def test_fingerprint_changes_with_a_label_and_with_the_order(name, own_copy):
    data_dir, folder = own_copy
    fingerprints = {load(name, "test", data_dir).fingerprint}
    for lines in (["Abyssinian_101 1 2 1", "Egyptian_Mau_2 12 2 1"], ["Egyptian_Mau_2 13 2 1", "Abyssinian_101 1 2 1"]):
        text(folder / "annotations" / "test.txt", *lines)
        fingerprints.add(load(name, "test", data_dir).fingerprint)
    assert len(fingerprints) == 3


def test_a_missing_data_set_is_told_with_the_command(name, tmp_path):
    command = f"python download_datasets.py --(datasets|list) {name} --data-dir {tmp_path}"
    sentence = rf"^{name} is not in '{tmp_path}' \('{tmp_path}/.*' is missing\); (get it with|see) '{command}'\.$"
    with pytest.raises(UserError, match=sentence):
        load(name, "test", tmp_path)


def test_missing_images_are_told_with_the_command(name, own_copy):
    data_dir, folder = own_copy
    top = COPIES[name].splits["test"][0][0].split("/")[0]
    shutil.rmtree(folder / top)
    wanted = "eurosat/2750" if name == "EuroSAT" else top
    with pytest.raises(UserError, match=rf"^{name} is not in '.*{wanted}.*' is missing\); (get it with|see) '"):
        load(name, "test", data_dir)


TEXT_LISTS = {
    "DTD": "labels/test1.txt",
    "RESISC45": "resisc45-test.txt",
    "SUN397": "Testing_01.txt",
    "Food101": "meta/test.txt",
    "OxfordPets": "annotations/test.txt",
    "FGVCAircraft": "images_variant_test.txt",
    "UCF101": "ucfTrainTestlist/testlist01.txt",
    "CUB": "images.txt",
    "GTSRB": "GT-final_test.csv",
}
MAT_LISTS = {"Cars": "cars_test_annos_withlabels.mat", "Flowers102": "setid.mat", "StanfordDogs": "test_list.mat"}


@pytest.mark.parametrize(("name", "listed"), (TEXT_LISTS | MAT_LISTS).items())
def test_a_missing_list_is_told_with_the_command(name, listed, own_copy):
    data_dir, folder = own_copy
    (folder / listed).unlink()
    with pytest.raises(UserError, match=rf"^{name} is not in .*{listed}' is missing\); (get it with|see) '"):
        load(name, "test", data_dir)


@pytest.mark.parametrize(("name", "listed"), TEXT_LISTS.items())
def test_a_text_list_that_ends_within_a_line_is_damaged(name, listed, own_copy):
    data_dir, folder = own_copy
    *whole, last = (folder / listed).read_text().splitlines()
    text(folder / listed, *whole, last[:2])
    with pytest.raises(UserError, match=rf"{listed}' is damaged: .*; remove it and get it again with .* --datasets {name}'\.$"):
        load(name, "test", data_dir)


@pytest.mark.parametrize(("name", "listed"), TEXT_LISTS.items())
def test_an_empty_text_list_is_damaged(name, listed, own_copy):
    data_dir, folder = own_copy
    text(folder / listed)
    with pytest.raises(UserError, match=" is damaged: it "):
        load(name, "test", data_dir)


@pytest.mark.parametrize(("name", "listed"), [(name, listed) for name, listed in TEXT_LISTS.items() if name != "CUB"])
def test_an_image_listed_twice_is_damage(name, listed, own_copy):
    data_dir, folder = own_copy
    lines = (folder / listed).read_text().splitlines()
    text(folder / listed, *lines, lines[-1])
    with pytest.raises(UserError, match=rf"{listed}' is damaged: it has '.*' twice"):
        load(name, "test", data_dir)


@pytest.mark.parametrize(("name", "listed"), TEXT_LISTS.items())
def test_a_list_that_is_no_text_is_refused(name, listed, own_copy):
    data_dir, folder = own_copy
    (folder / listed).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=rf"{listed}' is not UTF-8 text"):
        load(name, "test", data_dir)


@pytest.mark.parametrize(("name", "listed"), MAT_LISTS.items())
@pytest.mark.parametrize("size", [0, 100, 200, -8])
def test_a_torn_matlab_file_is_damaged(name, listed, size, own_copy):
    data_dir, folder = own_copy
    (folder / listed).write_bytes((folder / listed).read_bytes()[:size])
    with pytest.raises(UserError, match=rf"{listed}' is damaged: .*; remove it and get it again with "):
        load(name, "test", data_dir)


# --- the shared functions ------------------------------------------------------------------------------------------


def test_labels_count_from_first(tmp_path):
    task = listed_task("DTD", "test", tmp_path, tmp_path / "list.txt", iter([("x", 2), ("y", 1)]), ["a", "b"], first=1)
    assert (task.labels.tolist(), task.sample_ids, task.classnames) == ([1, 0], ["x", "y"], ("a", "b"))


@pytest.mark.parametrize(("label", "first"), [(2, 0), (-1, 0), (0, 1), (3, 1)])
def test_labels_that_are_no_class(tmp_path, label, first):
    sentence = f"list.txt' is damaged: it puts 'y' in class {label}, but classes count from {first} to {first + 1}; remove it"
    with pytest.raises(UserError, match=sentence):
        listed_task("DTD", "test", tmp_path, tmp_path / "list.txt", [("x", 1), ("y", label)], ["a", "b"], first=first)


def test_rows_keep_blanks_in_the_last_column(tmp_path):
    text(tmp_path / "list.txt", "1  two words", "", "2\tword ")
    assert rows("DTD", tmp_path / "list.txt", 2) == [["1", "two words"], ["2", "word"]]
    with pytest.raises(UserError, match=r"list.txt' is damaged: entry 2, '2 word', has 2 of 3 columns"):
        rows("DTD", tmp_path / "list.txt", 3)


@pytest.mark.parametrize("wrong", ["-1", "1.0", "²", "x"])
def test_what_is_no_whole_number(tmp_path, wrong):
    assert whole_number("DTD", tmp_path, "012") == 12
    with pytest.raises(UserError, match=f"'{wrong}' stands where a whole number is expected"):
        whole_number("DTD", tmp_path, wrong)


def test_folders_and_images_leave_out_what_is_hidden_or_other(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "b/.3.png", "b/notes.txt", ".hidden/1.png", "a"):
        text(tmp_path / name)
    assert folders_in(tmp_path) == ["b"]
    assert images_in(tmp_path, "b") == ["b/1.png", "b/2.JPG"]
    with pytest.raises(UserError, match=r"Cannot read the folder '.*/a': Not a directory\."):
        images_in(tmp_path, "a")
