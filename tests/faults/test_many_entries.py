"""A data set of very many entries starts as one of few: nothing is asked of the file system, and no object kept, for each entry."""

from __future__ import annotations

import gc
import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets.registry import load_task
from datasets.task import Task
from engine.loading import contiguous_batches, make_loader
from study.materials import _stamp_of_files
from tests.faults.scale import times

ENTRIES, CLASSES, LINKS = times(50_000, 1_000_000), 20, 10_000  # LINKS: names of one file; file systems have a limit
SAMPLES, SHARD = times(10_000, 1_000_000), 5_000  # in shards, which take longest to make
ALLOWED, OF_SHARD = 2_000, 20  # calls, or objects, beside those that the number of classes explains; of each shard


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 20, 200)).save(stream, "JPEG")
    return stream.getvalue()


def names() -> list[str]:
    return [f"class_{number % CLASSES:02}/{number:07}.jpg" for number in range(ENTRIES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of a few files in class folders."""
    root, content = tmp_path_factory.mktemp("many"), jpeg()
    for label in range(CLASSES):
        (root / "train" / f"class_{label:02}").mkdir(parents=True)
    for number, name in enumerate(names()):
        place = f"{root}/train/{name}"
        if number % LINKS == 0:
            first = place
            Path(place).write_bytes(content)
        else:
            os.link(first, place)
    return root


def of_folder(folder: Path) -> str:
    return f"imagefolder:{folder}"


def of_csv(folder: Path) -> str:
    lines = [f"train/{name},{name[:8]},train\n" for name in names()]
    (folder / "table.csv").write_text("path,label,split\n" + "".join(lines))
    return f"csv:{folder / 'table.csv'}"


def of_parquet(folder: Path) -> str:
    columns = {"path": [f"train/{name}" for name in names()], "label": [name[:8] for name in names()], "split": ["train"] * ENTRIES}
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return f"parquet:{folder / 'table.parquet'}"


def of_shards(folder: Path) -> str:
    """Archives of :data:`SHARD` samples each."""
    content, shards = jpeg(), folder / "shards"
    shards.mkdir(exist_ok=True)
    for first in range(0, SAMPLES, SHARD):
        with (shards / f"train-{first:07}.tar").open("wb") as stream:
            for number in range(first, min(first + SHARD, SAMPLES)):
                stream.write(member(f"{number:07}.jpg", content) + member(f"{number:07}.cls", b"%d" % (number % CLASSES)))
            stream.write(bytes(1024))
    return f"wds:{shards}"


def member(name: str, content: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry.tobuf() + content + bytes(-len(content) % 512)


KINDS: dict[str, Callable[[Path], str]] = {"imagefolder": of_folder, "csv": of_csv, "parquet": of_parquet, "wds": of_shards}


def start(name: str, folder: Path) -> Task:
    """What a command does before the first batch reaches the model."""
    task = load_task(name, "train", data_dir=folder / "data", val_p=0.01)
    loader = make_loader(task, to_tensor, contiguous_batches(len(task), 4))
    assert len(next(iter(loader))) == 4
    return task


def to_tensor(image: Image.Image) -> object:
    from torch import zeros

    return zeros(3, *image.size)


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_asks_little_and_keeps_little(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, calls = KINDS[kind](folder), count_calls(monkeypatch)
    start(name, folder)  # shards are indexed once
    gc.collect()
    before, calls["n"] = sys.getallocatedblocks(), 0
    task = start(name, folder)
    gc.collect()
    entries, allowed = (SAMPLES, ALLOWED + OF_SHARD * SAMPLES // SHARD) if kind == "wds" else (ENTRIES, ALLOWED)
    assert entries * 0.98 < len(task) <= entries
    assert calls["n"] < allowed
    assert sys.getallocatedblocks() - before < allowed


def count_calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a file is opened or asked for its state through Python's own functions."""
    calls = {"n": 0}

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            calls["n"] += 1
            return function(*args, **kwargs)

        return call

    for of, function in ((os, "stat"), (os, "lstat"), (io, "open"), (os, "open"), (Path, "stat"), (Path, "open"), (Path, "is_file")):
        monkeypatch.setattr(of, function, counted(getattr(of, function)))
    return calls


def test_a_study_looks_at_each_file_once_to_know_that_it_is_unchanged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(of_folder(folder), "train", val_p=0.01)
    calls = count_calls(monkeypatch)
    stamp = _stamp_of_files(task)
    assert len(task) <= calls["n"] < len(task) + ALLOWED
    assert stamp == _stamp_of_files(task)
    os.utime(folder / "train" / "class_00" / "0000000.jpg", ns=(1, 1))
    assert stamp != _stamp_of_files(task)
