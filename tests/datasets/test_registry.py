"""Data sets by name: what is found, what is offered instead, and slugs and templates."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from datasets import registry
from datasets.registry import OWN_SOURCES, SOURCES, Source, checked_name, load_task, read_templates, task_names, task_slug
from datasets.sources.drawn import DRAWN_TASKS
from datasets.task import SPLITS


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "cats" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "cats" / name / f"{i}.jpg").touch()
    return tmp_path / "cats"


def test_import_is_light():
    code = "import sys, datasets.registry; print(sorted({'torch', 'numpy', 'PIL', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(registry.__file__).parents[1])
    assert done.stdout.strip() == "[]"


def test_names_have_no_doubles_and_fit_in_file_names():
    names = task_names()
    assert "Digits" in names
    assert any(name.startswith("Shapes-") for name in names)
    assert len(set(map(str.lower, names))) == len(names)
    assert [task_slug(name) for name in names] == names


@pytest.mark.parametrize("name", ["Digits", "Shapes-Color"])
def test_splits_of_fixed_names(name):
    train, val, test = (load_task(name, split) for split in SPLITS)
    assert [task.split for task in (train, val, test)] == list(SPLITS)
    assert len(val) == round(0.1 * (len(train) + len(val)))
    everything = train.sample_ids + val.sample_ids + test.sample_ids
    assert len(set(everything)) == len(everything)
    assert len(load_task(name, "val", val_p=0.2)) == pytest.approx(2 * len(val), abs=1)


def test_an_own_validation_split_leaves_train_whole(monkeypatch, tmp_path):
    seen, digits = [], load_task("Digits", "test")

    def load(name, split, data_dir):
        seen.append((name, split, data_dir))
        return digits

    monkeypatch.setattr(registry, "_function", lambda place: load)
    monkeypatch.setitem(SOURCES, "Own", {"standard": Source("nowhere:at_all", own_validation=True)})
    for split in SPLITS:
        assert len(load_task("Own", split, data_dir=tmp_path)) == 597
    assert seen == [("Own", split, tmp_path) for split in SPLITS]


def test_imagefolder(folder):
    parts = [load_task(f"imagefolder:{folder}", split, val_p=0.25) for split in SPLITS]
    assert [len(task) for task in parts] == [12, 4, 4]
    assert parts[0].name == f"imagefolder:{folder}"


@pytest.mark.parametrize("name", ["Digits", "imagefolder"])
def test_templates_take_the_place_of_the_task_s_own(name, folder):
    name = f"imagefolder:{folder}" if name == "imagefolder" else name
    assert load_task(name, "test", templates=["the {}"]).templates == ("the {c}",)
    assert load_task(name, "test").templates != ("the {c}",)
    with pytest.raises(UserError, match="'the' has no place"):
        load_task(name, "test", templates=["the"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("digits", r"^Unknown data set 'digits'; did you mean 'Digits' \(own data: imagefolder:PATH, .*hub:ORG/NAME\)\?$"),
        ("Shapes-Colour", "did you mean 'Shapes-Color'"),
        (
            "StanfordCars",
            r"^Unknown data set 'StanfordCars'; its name here is 'Cars', and 'Cars@coop' with the splits of few-shot papers\.$",
        ),
        ("stanford_cars", "its name here is 'Cars'"),
        ("ImageNet-R", r"its name here is 'ImageNetRendition'\.$"),
        ("qqq", r"^Unknown data set 'qqq'; known: .*Digits.* \(own data: .*\)\.$"),
        ("", "Unknown data set ''; known: "),
        ("ImageFolder:/data/cats", "did you mean 'imagefolder:/data/cats'"),
        ("imagefolder:", "'imagefolder:' names nothing; write 'imagefolder:PATH'"),
        ("ROxford5k", "'ROxford5k' is a retrieval task without classes"),
        ("imagefolder:/no/such/folder", "'/no/such/folder' is missing"),
    ],
)
def test_unknown_names(name, sentence):
    with pytest.raises(UserError, match=sentence):
        load_task(name, "test")


def test_a_path_alone_is_told_how_to_be_a_data_set(folder):
    with pytest.raises(UserError, match=f"for a folder of images write 'imagefolder:{folder}'"):
        load_task(str(folder), "test")


def test_unknown_split():
    with pytest.raises(UserError, match="Unknown split 'valid'; did you mean 'val'"):
        load_task("Digits", "valid")


def test_slugs_of_two_folders_of_one_name_differ(tmp_path, monkeypatch):
    first, second = task_slug("imagefolder:/a/b/cats"), task_slug("imagefolder:/a/c/cats")
    assert first == "cats-" + first[-6:]
    assert first != second
    monkeypatch.chdir(tmp_path)
    written = {task_slug(f"imagefolder:{path}") for path in ("cats", "./cats/", "x/../cats", tmp_path / "cats")}
    assert len(written) == 1


def test_slug_of_a_path_with_odd_signs():
    assert task_slug("imagefolder:/data/my cats & dogs!")[:-7] == "my-cats---dogs"
    assert task_slug("imagefolder:/")[:-7] == "unnamed"


def test_templates_from_values_and_files(tmp_path):
    listed = tmp_path / "t.txt"
    listed.write_text("one {}\ntwo {c}\n")
    assert read_templates(["zero {c}", str(listed), "a {c}.txt"]) == ("zero {c}", "one {c}", "two {c}", "a {c}.txt")
    assert read_templates(None) is None
    assert read_templates([]) is None


def test_wrong_template_values(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read '.*absent.txt'"):
        read_templates([str(tmp_path / "absent.txt")])
    with pytest.raises(UserError, match="'a photo' has no place for the class name"):
        read_templates(["a photo"])


BUILT_IN = [name for name in task_names() if name == "Digits" or name.startswith(("Shapes-", "Glyphs-"))]


@pytest.mark.parametrize("name", BUILT_IN)
def test_labels_are_in_range(name):
    task = load_task(name, "test")
    assert task.labels.dtype == np.int64
    assert set(task.labels.tolist()) == set(range(len(task.classnames)))


def test_the_drawn_names_are_those_that_are_drawn():
    assert tuple(name for name in BUILT_IN if name != "Digits") == DRAWN_TASKS


def test_every_source_is_there():
    """Each module and function that the tables name exists."""
    for conventions in SOURCES.values():
        for source in conventions.values():
            assert callable(registry._function(source.function))
    for own in OWN_SOURCES.values():
        assert callable(registry._function(own.function))


def test_conventions():
    assert str(checked_name("DTD@standard")) == "DTD"
    assert str(checked_name("DTD@paper")) == "DTD@paper"
    with pytest.raises(UserError, match="MNIST has no 'coop' splits; known: standard, paper, hub"):
        checked_name("MNIST@coop")
    with pytest.raises(UserError, match="Unknown split convention 'papr'; did you mean 'paper'"):
        checked_name("DTD@papr")
