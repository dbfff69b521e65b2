"""Images in parquet files: random access, what is kept of them, and damaged files."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from datasets import image_cache, parquet_images
from datasets.parquet_images import ParquetImages
from datasets.parquet_table import class_names, image_column, label_column, read_texts
from datasets.samples import UnreadableImage
from tests.datasets.parquet_files import IMAGE, class_label, metadata, png, write_parquet

ROOT = Path(image_cache.__file__).parents[1]


@pytest.fixture
def two(tmp_path):
    """Two files of 5 and 4 images, in row groups of 2."""
    first = write_parquet(tmp_path / "in" / "train-00000-of-00002.parquet", [0, 1, 0, 1, 0])
    return [first, write_parquet(tmp_path / "in" / "train-00001-of-00002.parquet", [1, 1, 0, 0], shades=range(5, 9))]


def made(data_dir):
    return sorted(path for path in (data_dir / "image_cache").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("rows", [1, 3, 128])
def test_every_image_in_any_order(two, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parquet_images, "ROWS", rows)
    samples = ParquetImages.of(two, "image", tmp_path)
    assert len(samples) == 9
    for index in [8, 0, 4, 5, 3, 7, 1, 6, 2]:
        assert samples.read(index) == png(index)
        assert np.asarray(samples.image(index))[0, 0].tolist() == [index] * 3
    assert [samples.sample_id(index) for index in (0, 4, 5)] == [
        "train-00000-of-00002-000000",
        "train-00000-of-00002-000004",
        "train-00001-of-00002-000000",
    ]
    for index in (-1, 9):
        with pytest.raises(IndexError, match=f"sample {index} of 9"):
            samples.read(index)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE])
def test_kinds_of_columns_and_rows_without_an_image(tmp_path, kind):
    images = [{"bytes": png(1), "path": None}, None, {"bytes": None, "path": "x.png"}] if kind == IMAGE else [png(1), None, b""]
    pq.write_table(pa.table({"a/b": pa.array(images, kind)}), tmp_path / "x.parquet")
    samples = ParquetImages.of([tmp_path / "x.parquet"], "a/b", tmp_path)
    assert [samples.read(index) for index in range(3)] == [png(1), b"", b""]
    with pytest.raises(UnreadableImage, match="x-000001: the file is empty"):
        samples.image(1)


def test_pickled_samples_are_small_and_read_in_another_process(two, tmp_path):
    stored = tmp_path / "samples"
    stored.write_bytes(pickle.dumps(ParquetImages.of(two, "image", tmp_path)))
    assert stored.stat().st_size < 1500
    code = "import sys, pickle, pathlib; s = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); print(len(s.read(8)))"
    done = subprocess.run([sys.executable, "-c", code, stored], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) == len(png(8))


def test_images_are_copied_once(two, tmp_path, monkeypatch):
    ParquetImages.of(two, "image", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in made(tmp_path)}
    monkeypatch.setattr(parquet_images, "_copy_images", lambda *_: pytest.fail("copied again"))
    assert ParquetImages.of(two, "image", tmp_path).read(5) == png(5)
    assert {path: path.stat().st_mtime_ns for path in made(tmp_path)} == before
    assert len(before) == 2


def test_a_changed_file_is_copied_anew_and_the_old_copy_goes(two, tmp_path):
    ParquetImages.of(two, "image", tmp_path)
    before = made(tmp_path)
    write_parquet(two[1], [0, 1], shades=[50, 60])
    assert ParquetImages.of(two, "image", tmp_path).read(6) == png(60)
    assert len(made(tmp_path)) == 2
    assert len(set(made(tmp_path)) & set(before)) == 1


def test_what_a_killed_process_left_goes(two, tmp_path):
    ParquetImages.of(two[:1], "image", tmp_path)
    copy = made(tmp_path)[0]
    left = copy.with_name(f".{copy.name}.abc.tmp")
    left.mkdir()
    (left / "new.tmp").write_bytes(b"half")
    copy.unlink()
    ParquetImages.of(two[:1], "image", tmp_path)
    assert copy.exists()
    assert not left.exists()


def test_two_processes_at_once(two, tmp_path):
    code = (
        "import sys; from pathlib import Path; from datasets.parquet_images import ParquetImages;"
        "s = ParquetImages.of([Path(p) for p in sys.argv[2:]], 'image', Path(sys.argv[1])); print(len(s.read(8)))"
    )
    command = [sys.executable, "-c", code, tmp_path, *two]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(process.communicate()[0]) for process in processes] == [len(png(8))] * 2
    assert len(made(tmp_path)) == 2


def test_damaged_files(two, tmp_path):
    whole = two[0].read_bytes()
    two[0].write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"'.*train-00000-of-00002.parquet' is not a readable parquet file"):
        ParquetImages.of(two, "image", tmp_path)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    two[0].write_bytes(whole[:4] + bytes(len(whole) - footer - 4) + whole[-footer:])  # the footer is whole
    with pytest.raises(UserError, match=r"'.*train-00000-of-00002.parquet' is not a readable parquet file"):
        ParquetImages.of(two, "image", tmp_path)
    assert made(tmp_path) == []
    with pytest.raises(UserError, match=r"No such file: '.*none.parquet'"):
        ParquetImages.of([tmp_path / "none.parquet"], "image", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_that_cannot_be_written_to(two, tmp_path):
    (tmp_path / "data").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Cannot create the output folder"):
        ParquetImages.of(two, "image", tmp_path / "data")


def schema(features=None, **columns):
    return pa.schema(list(columns.items()), metadata(**features) if features else None)


def test_columns_are_found():
    assert image_column(schema(id=pa.int64(), picture=IMAGE)) == "picture"
    assert image_column(schema(raw=pa.binary(), img=pa.binary())) == "img"
    assert image_column(schema({"b": {"_type": "Image"}}, a=IMAGE, b=IMAGE)) == "b"
    assert image_column(schema(a=IMAGE, b=IMAGE)) is None
    assert image_column(schema(image=pa.string())) is None
    assert label_column(schema(coarse_label=pa.int64(), fine_label=pa.int64())) == "fine_label"
    assert label_column(schema({"kind": class_label("a", "b")}, kind=pa.int64(), x=pa.int64())) == "kind"
    assert label_column(schema(kind=pa.int64())) is None
    assert class_names(schema({"kind": class_label("a", "b")}, kind=pa.int64()), "kind") == ("a", "b")
    assert class_names(schema(kind=pa.int64()), "kind") is None
    assert class_names(pa.schema([("kind", pa.int64())], {b"huggingface": b"{torn"}), "kind") is None


def test_labels_as_texts(tmp_path):
    table = pa.table(
        {"n": [1, None], "b": [True, False], "s": ["007", "NA"], "d": pa.array(["x", "y"]).dictionary_encode(), "f": [0.5, 1.0]}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert {name: read_texts([tmp_path / "x.parquet"], name).tolist() for name in "nbsd"} == {
        "n": ["1", ""],
        "b": ["1", "0"],
        "s": ["007", "NA"],
        "d": ["x", "y"],
    }
    with pytest.raises(UserError, match=r"The column 'f' of '.*x.parquet' is of the type double; expected whole numbers or texts"):
        read_texts([tmp_path / "x.parquet"], "f")
