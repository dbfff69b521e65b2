"""The convention ``hub``: a local copy, and a stand-in for the hub that keeps count of what is fetched."""

import json
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest

from common.errors import UserError
from datasets.facts import published_classnames
from datasets.hub_repository import open_repository
from datasets.naming import CORRUPTIONS
from datasets.prompts import MERGING_KEYS, default_templates
from datasets.registry import SOURCES, load_task
from datasets.sources.hub_sets import HUB_SETS
from tests.datasets.parquet_files import png, shades_of, write_parquet, write_shard

CORRUPTED_CARD = """---
dataset_info:
  features:
  - {name: image, dtype: image}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: contrast
    path: data/contrast-*
  - split: test
    path: data/test-*
---
# Cars
"""


def copy_of(data_dir, name):
    return data_dir / "hub" / HUB_SETS[name].repository


@pytest.fixture
def cars(tmp_path):
    """A miniature of tanganke/stanford_cars, the training images in two files."""
    root = copy_of(tmp_path, "Cars")
    names = [f"car {number}" for number in range(196)]
    for part, labels in enumerate(([0, 0, 1], [195, 7])):
        write_parquet(
            root / f"data/train-{part:05d}-of-00002.parquet", labels, shades=[3 * part + i for i in range(len(labels))], names=names
        )
    write_parquet(root / "data/test-00000-of-00001.parquet", [4, 3], shades=[100, 101], names=names)
    write_parquet(root / "data/contrast-00000-of-00001.parquet", [4, 3], shades=[200, 201], names=names)
    (root / "README.md").write_text(CORRUPTED_CARD)
    return tmp_path


def test_every_set_with_this_convention_has_its_place():
    assert set(HUB_SETS) == {name for name, conventions in SOURCES.items() if "hub" in conventions}
    assert set(HUB_SETS) <= set(MERGING_KEYS)


def test_splits_labels_and_names(cars):
    train, val, test = (load_task("Cars@hub", split, data_dir=cars, val_p=0.4) for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (3, 2)
    labels = dict(zip(train.sample_ids + val.sample_ids, [*train.labels.tolist(), *val.labels.tolist()], strict=True))
    assert labels == {f"train-00000-of-00002-{i:06d}": label for i, label in enumerate([0, 0, 1])} | {
        f"train-00001-of-00002-{i:06d}": label for i, label in enumerate([195, 7])
    }
    assert (test.labels.tolist(), test.labels.dtype, shades_of(test)) == ([4, 3], np.int64, [100, 101])
    assert test.sample_ids == ["test-00000-of-00001-000000", "test-00000-of-00001-000001"]
    assert test.classnames == published_classnames("stanford_cars")
    assert (test.name, test.templates) == ("Cars@hub", default_templates("Cars"))
    assert test.fingerprint == load_task("Cars@hub", "test", data_dir=cars).fingerprint


def test_stored_corruptions(cars):
    clean, stored = (load_task(name, "test", data_dir=cars) for name in ("Cars@hub", "Cars@hub-contrast"))
    assert shades_of(stored) == [200, 201]
    assert (stored.name, stored.split, stored.labels.tolist()) == ("Cars@hub-contrast", "test", [4, 3])
    assert stored.fingerprint != clean.fingerprint
    for split in ("train", "val"):
        with pytest.raises(UserError, match="Cars@hub-contrast has test images only; train on Cars@hub"):
            load_task("Cars@hub-contrast", split, data_dir=cars)
    with pytest.raises(UserError, match="'tanganke/stanford_cars' on the hub has no split 'spatter'; it has: train, contrast, test"):
        load_task("Cars@hub-spatter", "test", data_dir=cars)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_corruption_is_a_split(tmp_path, kind):
    write_parquet(copy_of(tmp_path, "EuroSAT") / f"data/{kind}-00000-of-00001.parquet", [9], shades=[7])
    assert shades_of(load_task(f"EuroSAT@hub-{kind}", "test", data_dir=tmp_path)) == [7]


def test_a_copy_in_one_folder(cars):
    copy_of(cars, "Cars").rename(cars / "hub" / "tanganke__stanford_cars")
    assert len(load_task("Cars@hub", "test", data_dir=cars)) == 2


def test_labels_of_truth_values(tmp_path):
    write_parquet(copy_of(tmp_path, "PCAM") / "data/test-00000-of-00001.parquet", [True, False, True])
    task = load_task("PCAM@hub", "test", data_dir=tmp_path)
    assert (task.labels.tolist(), len(task.classnames)) == ([1, 0, 1], 2)


def test_configurations_and_other_names_of_the_test_split(tmp_path):
    for config, label in (("cropped_digits", 3), ("full_numbers", 4)):
        write_parquet(copy_of(tmp_path, "SVHN") / config / "test-00000-of-00001.parquet", [label])
    assert load_task("SVHN@hub", "test", data_dir=tmp_path).labels.tolist() == [3]
    write_parquet(copy_of(tmp_path, "Food101") / "data/validation-00000-of-00001.parquet", [100, 5])
    assert load_task("Food101@hub", "test", data_dir=tmp_path).labels.tolist() == [100, 5]
    write_parquet(copy_of(tmp_path, "MNIST") / "mnist/test-00000-of-00001.parquet", [9])
    assert load_task("MNIST@hub", "test", data_dir=tmp_path).labels.tolist() == [9]


def test_fine_labels(tmp_path):
    path = copy_of(tmp_path, "CIFAR100") / "data/test-00000-of-00001.parquet"
    write_parquet(path, [99], column="img", label="fine_label")
    assert load_task("CIFAR100@hub", "test", data_dir=tmp_path).labels.tolist() == [99]


def test_shards(tmp_path):
    root = copy_of(tmp_path, "FER2013")
    write_shard(root / "test/0.tar", [("s0.cls", b"6"), ("s0.jpg", png(8)), ("s1.cls", b"0"), ("s1.jpg", png(9))])
    (root / "classnames.txt").write_text("another\nlist\n")
    task = load_task("FER2013@hub", "test", data_dir=tmp_path)
    assert (task.labels.tolist(), task.sample_ids, shades_of(task)) == ([6, 0], ["test/0/s0", "test/0/s1"], [8, 9])
    assert task.classnames == published_classnames("fer2013")


@pytest.mark.parametrize("label", [10, -1])
def test_labels_out_of_range(tmp_path, label):
    write_parquet(copy_of(tmp_path, "MNIST") / "mnist/test-00000-of-00001.parquet", [0, label])
    with pytest.raises(UserError, match=rf"The split 'test' of 'ylecun/mnist' has the label '{label}'; expected numbers from 0 to 9\."):
        load_task("MNIST@hub", "test", data_dir=tmp_path)


def test_a_missing_label(tmp_path):
    write_parquet(copy_of(tmp_path, "MNIST") / "mnist/test-00000-of-00001.parquet", [0, None])
    with pytest.raises(UserError, match="has the label ''; expected numbers from 0 to 9"):
        load_task("MNIST@hub", "test", data_dir=tmp_path)


def test_incomplete_and_foreign_copies(cars):
    (copy_of(cars, "Cars") / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"'tanganke/stanford_cars' has 1 of the 2 files of 'data/train-00000-of-00002.parquet'"):
        load_task("Cars@hub", "train", data_dir=cars)
    copy_of(cars, "GTSRB").mkdir()
    with pytest.raises(UserError, match="'tanganke/gtsrb' has no parquet or tar files of images"):
        load_task("GTSRB@hub", "test", data_dir=cars)
    write_parquet(copy_of(cars, "GTSRB") / "data/test.parquet", [1], label="kind")
    with pytest.raises(UserError, match=r"no column of labels .*; its columns are: image, kind"):
        load_task("GTSRB@hub", "test", data_dir=cars)
    write_parquet(copy_of(cars, "DTD") / "data/test.parquet", ["a"], kind=pa.string())
    with pytest.raises(UserError, match="has the label 'a'; expected numbers from 0 to 46"):
        load_task("DTD@hub", "test", data_dir=cars)


# --- the hub itself ------------------------------------------------------------------------------------------------


class Hub:
    """Repositories as folders, one per branch; counts questions."""

    def __init__(self, root, branches):
        self.root, self.branches, self.asked, self.fetched = root, branches, 0, []

    def dataset_info(self, name, revision=None):
        self.asked += 1
        commit = self.branches[revision or "main"]
        files = [path.relative_to(self.root / commit).as_posix() for path in sorted((self.root / commit).rglob("*")) if path.is_file()]
        return SimpleNamespace(sha=commit, siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(self, name, file, *, repo_type, revision):
        assert repo_type == "dataset"
        self.fetched.append((revision, file))
        return str(self.root / revision / file)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    remote = tmp_path / "remote"
    write_parquet(remote / "aaa" / "mnist/test-00000-of-00001.parquet", [5, 6])
    write_parquet(remote / "aaa" / "mnist/train-00000-of-00001.parquet", [5, 6])
    (remote / "aaa" / "picture.png").touch()
    hub = Hub(remote, {"main": "aaa"})
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.download)
    return hub


def test_the_first_revision_is_kept(hub, tmp_path):
    data = tmp_path / "data"
    assert load_task("MNIST@hub", "test", data_dir=data).labels.tolist() == [5, 6]
    files = ["mnist/test-00000-of-00001.parquet", "mnist/train-00000-of-00001.parquet"]
    assert json.loads((data / "hub_revisions.json").read_text()) == {"ylecun/mnist": {"revision": "aaa", "files": files}}
    write_parquet(hub.root / "bbb" / "mnist/test-00000-of-00001.parquet", [1])
    hub.branches["main"] = "bbb"
    assert load_task("MNIST@hub", "test", data_dir=data).labels.tolist() == [5, 6]
    assert hub.asked == 1
    assert hub.fetched == [("aaa", files[0])] * 2
    (data / "hub_revisions.json").unlink()
    assert load_task("MNIST@hub", "test", data_dir=data).labels.tolist() == [1]


def test_several_sets_in_one_list(hub, tmp_path):
    load_task("MNIST@hub", "test", data_dir=tmp_path)
    open_repository("tanganke/kmnist", tmp_path)
    assert list(json.loads((tmp_path / "hub_revisions.json").read_text())) == ["ylecun/mnist", "tanganke/kmnist"]


def test_sets_in_other_formats_are_read_from_what_the_hub_converts_them_to(hub, tmp_path):
    (hub.root / "zip").mkdir()
    (hub.root / "zip" / "images.zip").touch()
    write_parquet(hub.root / "ccc" / "default/test/0000.parquet", [1, 0])
    hub.branches |= {"main": "zip", "refs/convert/parquet": "ccc"}
    assert load_task("RenderedSST2@hub", "test", data_dir=tmp_path).labels.tolist() == [1, 0]
    assert hub.fetched == [("ccc", "default/test/0000.parquet")]


def answer(status):
    return httpx.Response(status, request=httpx.Request("GET", "http://hub"))


def errors():
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    return [
        (GatedRepoError("no", response=answer(403)), "is gated: accept its terms on the hub and run 'hf auth login'"),
        (RepositoryNotFoundError("no", response=answer(404)), "There is no public data set 'ylecun/mnist'"),
        (OfflineModeIsEnabled("offline mode is on"), r"Cannot fetch 'ylecun/mnist' .* \(offline mode is on\)"),
        (LocalEntryNotFoundError("no network\nmore"), r"\(no network\)"),
        (httpx.ConnectError("refused"), r"\(refused\)"),
    ]


@pytest.mark.parametrize(("error", "sentence"), errors(), ids=lambda value: type(value).__name__)
def test_what_the_hub_refuses(hub, tmp_path, monkeypatch, error, sentence):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(hub, "dataset_info", refuse)
    with pytest.raises(UserError, match=f"{sentence}.*; a copy in 'hub/ylecun/mnist' below --data-dir works too") as told:
        load_task("MNIST@hub", "test", data_dir=tmp_path)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "hub_revisions.json").exists()


@pytest.mark.parametrize("entry", ['"aaa"', '{"revision": "aaa"}', '{"revision": 1, "files": []}'])
def test_a_damaged_list_of_revisions(hub, tmp_path, entry):
    (tmp_path / "hub_revisions.json").write_text(f'{{"ylecun/mnist": {entry}}}')
    with pytest.raises(UserError, match="does not say the revision and the files of 'ylecun/mnist'"):
        load_task("MNIST@hub", "test", data_dir=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot create .*file': File exists"):
        load_task("MNIST@hub", "test", data_dir=tmp_path / "file")
    (tmp_path / "hub_revisions.json").write_text("{")
    with pytest.raises(UserError, match="is not readable JSON"):
        load_task("MNIST@hub", "test", data_dir=tmp_path)
