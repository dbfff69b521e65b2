"""Damaged data sets: a task that was given is one that can be gone through, each image read or told to be unreadable."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.downloads.entries import Download, Entry, Item, read_manifest
from datasets.downloads.unpack import unpack
from datasets.own.imagefolder import EXTENSIONS
from datasets.plain_pickle import read_plain_pickle
from datasets.registry import load_task
from datasets.samples import UnreadableImage
from datasets.task import Task, read_template_file
from tests.datasets import array_files as arrays
from tests.datasets.parquet_files import IMAGE, class_label, metadata, write_shard
from tests.datasets.sources.listed_copies import COPIES, no_lists
from tests.faults.damage import Reader, attack, files_in, time_limit
from tests.faults.scale import times

LABELS = (0, 1, 1, 0, 1)


def usable(task: Task) -> None:
    """Labels are classes, ids and a fingerprint can be had, every image is one or is told to be unreadable."""
    with time_limit():
        assert len(task) == len(task.labels) > 0
        assert task.labels.min() >= 0
        assert task.labels.max() < len(task.classnames)
        assert all(isinstance(name, str) and name for name in task.classnames)
        assert len(task.fingerprint) == 64
        for index in range(min(len(task), 8)):
            try:
                image = task.samples.image(index)
            except UnreadableImage as error:
                assert "\n" not in str(error)
            else:
                assert image.mode == "RGB"
                assert min(image.size) > 0


def of_task(folder: Path, name: str, split: str, damage: tuple[str, ...] = ()) -> Reader:
    """Load the task ``name``, in which {} stands for the folder."""
    files = files_in(folder)
    names = (name, *(part for file in files for part in Path(file).with_suffix("").parts))
    return Reader(files, lambda at: load_task(name.format(at), split, data_dir=at), usable, damage, names=names)


def jpegs(n: int = len(LABELS)) -> list[bytes]:
    made = []
    for seed in range(n):
        stream, pixels = io.BytesIO(), np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG" if seed % 2 else "PNG")
        made.append(stream.getvalue())
    return made


# --- own data ------------------------------------------------------------------------------------------------------


def image_folder(folder: Path) -> Reader:
    for number, (label, image) in enumerate(zip(LABELS, jpegs(), strict=True)):
        arrays.write(folder / "set" / "test" / "ab"[label] / f"{number}.jpg", image)
    arrays.write(folder / "set" / "classnames.txt", b"a: cat\nb: dog\n")
    arrays.write(folder / "set" / "templates.txt", b"a photo of a {c}.\na {c}\n")
    return of_task(folder, "imagefolder:{}/set", "test", damage=("set/classnames.txt", "set/templates.txt", "set/test/a/0.jpg"))


def csv_list(folder: Path) -> Reader:
    for number, image in enumerate(jpegs()):
        arrays.write(folder / f"{number}.jpg", image)
    rows = [(f"{number}.jpg", "ab"[label], "test", "g") for number, label in enumerate(LABELS)]
    arrays.write_csv(folder / "list.csv", [("path", "label", "split", "group"), *rows])
    return of_task(folder, "csv:{}/list.csv", "test", damage=("list.csv",))


def _table(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = pa.array([{"bytes": image, "path": None} for image in jpegs()], IMAGE)
    table = pa.table({"image": images, "label": pa.array(LABELS), "split": ["test"] * len(LABELS)})
    path.parent.mkdir(parents=True, exist_ok=True)
    described = metadata(image={"_type": "Image"}, label=class_label("a", "b"))
    pq.write_table(table.replace_schema_metadata(described), path, row_group_size=2)


def parquet(folder: Path) -> Reader:
    _table(folder / "list.parquet")
    return of_task(folder, "parquet:{}/list.parquet", "test")


def hub(folder: Path) -> Reader:
    _table(folder / "hub/me/birds/data/test-00000-of-00001.parquet")
    return of_task(folder, "hub:me/birds", "test")


def shards(folder: Path) -> Reader:
    labels = [b'{"label": 0}', b'{"label": "cat"}', b'{"label": 0}', b'{"label": "cat"}', b'{"label": true}']
    parts = [(("jpg", image), ("json", label)) for image, label in zip(jpegs(), labels, strict=True)]
    files = [(f"{number}.{end}", data) for number, part in enumerate(parts) for end, data in part]
    write_shard(folder / "wds/test/0.tar", files)
    return of_task(folder, "wds:{}/wds", "test")


# --- data sets ------------------------------------------------------------------------------------------------------


def stack(*shape: int) -> np.ndarray:
    return arrays.noise(len(LABELS), *shape)


def mnist(folder: Path) -> Reader:
    arrays.write_idx_pair(folder / "MNIST/raw", "t10k", stack(28, 28), np.array(LABELS), ".gz")
    return of_task(folder, "MNIST", "test")


def mnist_plain(folder: Path) -> Reader:
    arrays.write_idx_pair(folder / "MNIST/raw", "t10k", stack(28, 28), np.array(LABELS))
    return of_task(folder, "MNIST", "test")


def cifar_binary(folder: Path) -> Reader:
    arrays.write_cifar_binary(folder / "cifar-10-batches-bin/test_batch.bin", stack(32, 32, 3), np.array(LABELS))
    return of_task(folder, "CIFAR10", "test")


def cifar_pickled(folder: Path) -> Reader:
    arrays.write_cifar_python(folder / "cifar-10-batches-py/test_batch", stack(32, 32, 3), labels=np.array(LABELS))
    return of_task(folder, "CIFAR10", "test")


def svhn(folder: Path) -> Reader:
    arrays.write_svhn(folder / "svhn/test_32x32.mat", stack(32, 32, 3), np.array(LABELS))
    return of_task(folder, "SVHN", "test")


def stl10(folder: Path) -> Reader:
    arrays.write_stl10(folder / "stl10_binary", "test", stack(96, 96, 3), np.array(LABELS))
    return of_task(folder, "STL10", "test")


def pcam(folder: Path) -> Reader:
    arrays.write_pcam(folder / "pcam", "test", stack(96, 96, 3), np.array(LABELS))
    return of_task(folder, "PCAM", "test")


def fer2013(folder: Path) -> Reader:
    texts = [" ".join(map(str, image.ravel())) for image in stack(48, 48)]
    arrays.write_csv(folder / "fer2013/fer2013.csv", [("emotion", "pixels", "Usage"), *((1, text, "PublicTest") for text in texts)])
    return of_task(folder, "FER2013", "test")


LISTED = [name for name, copy in COPIES.items() if copy.write_lists is not no_lists]


def listed(folder: Path, name: str) -> Reader:
    COPIES[name].write(folder)
    lists = tuple(file for file in files_in(folder) if Path(file).suffix.lower() not in EXTENSIONS)
    return of_task(folder, name, "test", lists)


def coop(folder: Path) -> Reader:
    entries: list[Any] = [[f"banded/{number}.jpg", label, ("banded", "dotted")[label]] for number, label in enumerate(LABELS)]
    for (path, _, _), image in zip(entries, jpegs(), strict=True):
        arrays.write(folder / "dtd/images" / path, image)
    split = {"train": entries[:2], "val": entries[2:3], "test": entries[3:]}
    arrays.write(folder / "dtd/split_zhou_DescribableTextures.json", json.dumps(split).encode())
    return of_task(folder, "DTD@coop", "test", ("dtd/split_zhou_DescribableTextures.json",))


# --- what data sets come in ----------------------------------------------------------------------------------------


def pickle(folder: Path) -> Reader:
    whole = {"data": stack(4), "labels": [0, 1], "name": "a batch", "scale": 1.5}
    arrays.write(folder / "batch", arrays.python2_pickle(whole))

    def check(value: object) -> None:
        json.dumps(value, default=lambda each: each.tolist() if isinstance(each, np.ndarray | np.generic) else str(each))

    return Reader(files_in(folder), lambda at: read_plain_pickle(at / "batch"), check)


def modern_pickle(folder: Path) -> Reader:
    import pickle

    arrays.write(folder / "batch", pickle.dumps({"data": stack(4), "labels": [0, 1], "names": ("a", b"b"), "scale": np.float64(1.5)}))
    return Reader(files_in(folder), lambda at: read_plain_pickle(at / "batch"), lambda _: None)


ITEMS = (Item("mine/images", "set/images", files=2), Item("mine/labels.txt", "set/labels.txt"))
MEMBERS = {"set/images/a.jpg": b"A" * 500, "set/images/deep/b.jpg": b"B", "set/labels.txt": b"a 0\n", "set/README": b"not wanted"}


def archive(folder: Path, name: str) -> Reader:
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as zipped:
            for member, content in MEMBERS.items():
                zipped.writestr(member, content)
    else:
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as packed:
            for member, content in MEMBERS.items():
                about = tarfile.TarInfo(member)
                about.size = len(content)
                packed.addfile(about, io.BytesIO(content))

    def unpacked(at: Path) -> list[str]:
        unpack(at / name, Download(f"http://x/{name}", ITEMS), ITEMS, at / "data")
        outside = [path for path in at.rglob("*") if path.is_file() and path not in (at / name,) and (at / "data/mine") not in path.parents]
        return [str(path) for path in outside]

    def check(outside: list[str]) -> None:
        assert outside == []

    return Reader(files_in(folder), unpacked, check)


def manifest(folder: Path) -> Reader:
    items = [{"path": "dtd/images", "inner": "dtd/images", "files": 3}]
    download = {"url": "http://x/a.tar.gz", "size": 9, "checksum": f"md5:{'0' * 32}", "items": items}
    arrays.write(folder / "manifest.json", json.dumps([{"name": "DTD", "home": "h", "licence": "l", "downloads": [download]}]).encode())

    def check(entries: dict[str, Entry]) -> None:
        for entry in entries.values():
            assert entry.size >= 0
            assert all(".." not in item.path for download in entry.downloads for item in download.items)

    return Reader(files_in(folder), lambda at: read_manifest(at / "manifest.json"), check)


def templates(folder: Path) -> Reader:
    arrays.write(folder / "templates.txt", b"a photo of a {c}.\na {c}\n")

    def check(value: tuple[str, ...]) -> None:
        assert value
        assert all("{c}" in each for each in value)

    return Reader(files_in(folder), lambda at: read_template_file(at / "templates.txt"), check, names=("templates", "template"))


OWN = [image_folder, csv_list, parquet, hub, shards, coop, pickle, modern_pickle, manifest, templates]
SETS = [mnist, mnist_plain, cifar_binary, cifar_pickled, svhn, stl10, pcam, fer2013]


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_damaged_own_data(kind: Callable[[Path], Reader], tmp_path: Path) -> None:
    attack(kind(tmp_path), times(20, 500))


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
def test_damaged_arrays(kind: Callable[[Path], Reader], tmp_path: Path) -> None:
    attack(kind(tmp_path), times(10, 150))


@pytest.mark.parametrize("name", LISTED)
def test_damaged_lists(name: str, tmp_path: Path) -> None:
    attack(listed(tmp_path, name), times(10, 150))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_damaged_archives(name: str, tmp_path: Path) -> None:
    attack(archive(tmp_path, name), times(20, 500))
