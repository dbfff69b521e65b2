"""Embeddings files: what is written is read, in both formats; what is damaged is refused in one sentence."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.errors import UserError
from engine.embeddings import FORMAT, KEYS, UNTUNED, Embeddings, describe, load_embeddings, read_metadata, save_embeddings

CLASSES = ["cat, tabby", 'dog "rex"', "nan"]  # commas, quotes, and a name that CSV readers like to take for a number


def random_embeddings(images=20, dimensions=6, classes=3, classnames=CLASSES, **extra):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((images + classes, dimensions))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    metadata = describe(model="clip", dataset="Pets", split="train", classnames=classnames, templates=["a photo of a {c}"], **extra)
    ids = [f"train/{number}.png" for number in range(images)]
    return Embeddings(rows[:images], rows[images:], generator.integers(0, classes, images), ids, metadata)


def same(one, other):
    arrays = ("image_embeddings", "text_embeddings", "labels")
    assert all(getattr(one, name).dtype == getattr(other, name).dtype for name in arrays)
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return one.sample_ids == other.sample_ids and one.metadata == other.metadata


@pytest.fixture(params=["safetensors", "csv"])
def format(request):
    return request.param


def test_what_is_written_is_read(tmp_path, format):
    written = random_embeddings(embedding_seconds="1.25")
    path = save_embeddings(tmp_path / "clip" / "Pets_train", written, format)
    assert same(load_embeddings(path), written)
    assert read_metadata(path) == written.metadata


def test_names_of_the_files(tmp_path):
    assert save_embeddings(tmp_path / "ViT-B.v1_x.safetensors", random_embeddings()).name == "ViT-B.v1_x.safetensors"
    assert save_embeddings(tmp_path / "ViT-B.v1_x.safetensors", random_embeddings(), "csv").name == "ViT-B.v1_x_image_embeddings.csv"
    expected = [f"ViT-B.v1_x{end}" for end in (".ids.txt", ".safetensors", "_image_embeddings.csv", "_image_embeddings.ids.txt")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*expected, "ViT-B.v1_x_metadata.json", "ViT-B.v1_x_text_embeddings.csv"]
    )


def test_the_header_is_the_contract(tmp_path):
    path = save_embeddings(tmp_path / "x", random_embeddings(tuning="lora", fingerprint="ab12"))
    metadata = read_metadata(path)
    assert set(KEYS) <= set(metadata)
    assert (metadata["format"], metadata["tuning"], metadata["fingerprint"]) == ("clipscope-embeddings/1", "lora", "ab12")
    assert json.loads(metadata["classnames"]) == CLASSES
    assert "numpy" in json.loads(metadata["versions"])
    assert {name: str(array.dtype) for name, array in load_file(path).items()} == {
        "image_embeddings": "float32",
        "text_embeddings": "float32",
        "labels": "int64",
    }


def test_float32_survives_csv_bit_by_bit(tmp_path):
    written = random_embeddings(images=3, dimensions=4)
    extremes = np.array([[1e-42, -0.0, 1 / 3, 3.4e38], [1.1754944e-38, 16777217, -1e-7, 0.1], [1, 2, 3, 4]], np.float32)
    noise = np.random.default_rng(1).integers(0, 2**32, (1000, 4), dtype=np.uint32).view(np.float32)
    rows = np.concatenate([extremes, noise[np.isfinite(noise).all(axis=1)]])
    written = replace(written, image_embeddings=rows, labels=np.zeros(len(rows), np.int64), sample_ids=[])
    read = load_embeddings(save_embeddings(tmp_path / "x", written, "csv"))
    assert np.array_equal(read.image_embeddings.view(np.uint32), rows.view(np.uint32))


def test_strange_sample_ids(tmp_path, format):
    ids = ["a\nb", "back\\slash", "\\n", "line\u2028separator", " spaces ", "", "\r", "\udcff.png", "é"]
    embeddings = replace(random_embeddings(images=len(ids)), sample_ids=ids)
    assert load_embeddings(save_embeddings(tmp_path / "x", embeddings, format)).sample_ids == ids


def test_without_the_ids_the_rest_is_read(tmp_path, format):
    path = save_embeddings(tmp_path / "x", random_embeddings(), format)
    path.with_suffix(".ids.txt").unlink()
    assert load_embeddings(path).sample_ids == []


def test_no_ids_leave_no_stale_sidecar(tmp_path, format):
    path = save_embeddings(tmp_path / "x", random_embeddings(), format)
    save_embeddings(tmp_path / "x", replace(random_embeddings(), sample_ids=[]), format)
    assert load_embeddings(path).sample_ids == []


def test_ids_of_another_file_are_refused(tmp_path, format):
    path = save_embeddings(tmp_path / "x", random_embeddings(), format)
    path.with_suffix(".ids.txt").write_text("".join(f"other/{number}\n" for number in range(20)))
    with pytest.raises(UserError, match=r"ids\.txt' are not those of the embeddings beside it"):
        load_embeddings(path)


def test_the_file_is_as_readable_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        path = save_embeddings(tmp_path / "x", random_embeddings())
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_embeddings(tmp_path / "x", random_embeddings())
    before = path.read_bytes()
    monkeypatch.setattr("engine.embeddings.save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"Cannot write '.*x\.safetensors': No space left on device"):
        save_embeddings(tmp_path / "x", random_embeddings())
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_metadata_must_be_whole(tmp_path):
    embeddings = replace(random_embeddings(), metadata={"model": "clip"})
    with pytest.raises(ValueError, match=r"metadata without format, tuning, .*make it with describe"):
        save_embeddings(tmp_path / "x", embeddings)


def test_reading_imports_no_torch():
    code = "import sys, engine.embeddings, get_metric_scores; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# Damage


def refused(path, message):
    with pytest.raises(UserError, match=message) as error:
        load_embeddings(path)
    assert path.stem in str(error.value)
    assert "\n" not in str(error.value)


def saved_with(path, drop=(), metadata=None, **tensors):
    """A safetensors file of random embeddings with some tensors replaced, and without a checksum."""
    embeddings = random_embeddings()
    whole = {name: getattr(embeddings, name) for name in ("image_embeddings", "text_embeddings", "labels")} | tensors
    save_file({name: array for name, array in whole.items() if name not in drop}, path, embeddings.metadata | (metadata or {}))
    return path


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_truncated(tmp_path, length):
    path = save_embeddings(tmp_path / "x", random_embeddings())
    path.write_bytes(path.read_bytes()[:length])
    refused(path, "is not a whole safetensors file")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        read_metadata(path)


def test_one_flipped_bit(tmp_path):
    path = save_embeddings(tmp_path / "x", random_embeddings())
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # the lowest bit of the last number, which stays finite
    path.write_bytes(content)
    refused(path, "is damaged or was edited")


def test_missing_file(tmp_path):
    refused(tmp_path / "absent.safetensors", "No such file")


def test_a_folder(tmp_path):
    refused(tmp_path, "is a folder; expected an embeddings file")


def test_another_format_version(tmp_path):
    refused(saved_with(tmp_path / "x.safetensors", metadata={"format": "clipscope-embeddings/2"}), f"'clipscope-embeddings/2'.*'{FORMAT}'")


def test_a_safetensors_file_of_something_else(tmp_path):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "does not say its format")


@pytest.mark.parametrize("name", ["image_embeddings", "text_embeddings", "labels"])
def test_missing_tensor(tmp_path, name):
    refused(saved_with(tmp_path / "x.safetensors", drop=[name]), f"has no tensor '{name}'")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"image_embeddings": np.ones((20, 6), np.float16)}, "'image_embeddings' as F16; expected F32"),
        ({"labels": np.zeros(20, np.int32)}, "'labels' as I32; expected I64"),
        ({"labels": np.zeros((20, 1), np.int64)}, r"labels is int64 of shape \[20, 1\], expected int64 of shape \[20\]"),
        ({"labels": np.zeros(19, np.int64)}, r"expected int64 of shape \[20\]"),
        ({"labels": np.full(20, 3)}, r"image 0 has the label 3, expected one in 0\.\.2"),
        ({"labels": np.full(20, -1)}, "image 0 has the label -1"),
        ({"image_embeddings": np.ones(20, np.float32)}, "expected float32 with two dimensions"),
        ({"text_embeddings": np.ones((3, 7), np.float32)}, "image_embeddings have 6 dimensions, text_embeddings 7"),
        ({"text_embeddings": np.ones((4, 6), np.float32)}, "3 class names, expected 4"),
        ({"image_embeddings": np.full((20, 6), np.nan, np.float32)}, "image_embeddings has a value that is not finite in row 0"),
        ({"image_embeddings": np.zeros((0, 6), np.float32), "labels": np.zeros(0, np.int64)}, "at least one row"),
    ],
)
def test_tensors_that_are_not_embeddings(tmp_path, tensors, message):
    refused(saved_with(tmp_path / "x.safetensors", **tensors), message)


@pytest.mark.parametrize("classnames", ["[", '{"a": 1}'])
def test_class_names_that_are_not_a_list(tmp_path, classnames):
    refused(saved_with(tmp_path / "x.safetensors", metadata={"classnames": classnames}), "its classnames are not")


# The CSV pair


@pytest.mark.parametrize("given", ["x_image_embeddings.csv", "x_text_embeddings.csv"])
def test_either_file_of_a_pair_names_both(tmp_path, given):
    written = random_embeddings()
    save_embeddings(tmp_path / "x", written, "csv")
    assert same(load_embeddings(tmp_path / given), written)


def test_layout_of_the_pair(tmp_path):
    embeddings = random_embeddings(images=2, dimensions=2)
    embeddings = replace(embeddings, image_embeddings=np.array([[1, 0], [0.6, 0.8]], np.float32), labels=np.array([2, 0]))
    path = save_embeddings(tmp_path / "x", embeddings, "csv")
    assert path.read_text() == '0,1,label\n1,0,"nan"\n0.600000024,0.800000012,"cat, tabby"\n'


def test_class_names_that_occur_twice_are_told_apart(tmp_path):
    written = random_embeddings(classnames=["crane", "crane", "1"])  # ImageNet has two cranes
    written.labels[:] = 1  # the second crane, not the class that is called 1
    assert same(load_embeddings(save_embeddings(tmp_path / "x", written, "csv")), written)


def test_digits_as_class_names_in_another_order(tmp_path):
    written = random_embeddings(classnames=["2", "0", "1"])
    assert same(load_embeddings(save_embeddings(tmp_path / "x", written, "csv")), written)


IMAGES = {
    "plain": "0,1,label\n1,0,cat\n0.6,0.8,dog\n0,1,dog\n",
    "index column": ",0,1,label\n0,1,0,cat\n1,0.6,0.8,dog\n2,0,1,dog\n",
    "named index column": "index,0,1,target\n0,1,0,cat\n1,0.6,0.8,dog\n2,0,1,dog\n",
    "label first, other header": "class,a,b\ncat,1,0\ndog,0.6,0.8\ndog,0,1\n",
    "row numbers": "0,1,labels\n1,0,0\n0.6,0.8,1\n0,1,1\n",
    "row numbers as floats": "0,1,label\n1,0,0.0\n0.6,0.8,1.0\n0,1,1.0\n",
    "windows": "\ufeff0,1,Label\r\n1,0,cat\r\n0.6,0.8,dog\r\n0,1,dog\r\n",
}


@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize("texts", ["0,1,label\n1,0,cat\n0,1,dog\n", ",0,1,label\n0,1,0,cat\n1,0,1,dog\n"])
def test_files_of_the_released_code(tmp_path, layout, texts):
    (tmp_path / "clip_EuroSAT_image_embeddings_zs.csv").write_text(IMAGES[layout], newline="")
    (tmp_path / "clip_EuroSAT_text_embeddings_zs.csv").write_text(texts)
    read = load_embeddings(tmp_path / "clip_EuroSAT_image_embeddings_zs.csv")
    assert read.labels.tolist() == [0, 1, 1]
    assert np.array_equal(read.image_embeddings, np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32))
    assert np.array_equal(read.text_embeddings, np.eye(2, dtype=np.float32))
    assert read.classnames == ["cat", "dog"]
    assert (read.metadata["model"], read.metadata["dataset"], read.metadata["tuning"]) == ("clip", "EuroSAT", UNTUNED)
    assert {read.metadata[key] for key in ("split", "fingerprint", "checkpoint_sha256", "created")} == {""}


def test_a_renamed_released_file_of_a_tuned_model(tmp_path):
    (tmp_path / "MNIST_image_embeddings.csv").write_text(IMAGES["row numbers"])
    (tmp_path / "MNIST_text_embeddings.csv").write_text("0,1\n1,0\n0,1\n")  # texts need no label
    read = load_embeddings(tmp_path / "MNIST_text_embeddings.csv")
    assert (read.metadata["model"], read.metadata["dataset"], read.metadata["tuning"]) == ("", "MNIST", "")
    assert read.classnames == ["0", "1"]


def test_released_rows_that_are_not_unit_are_normalised(tmp_path):
    (tmp_path / "a_b_image_embeddings.csv").write_text("0,1,label\n3,0,cat\n6,8,dog\n")
    (tmp_path / "a_b_text_embeddings.csv").write_text("0,1,label\n1,0,cat\n0,1,dog\n")
    read = load_embeddings(tmp_path / "a_b_image_embeddings.csv")
    assert np.array_equal(read.image_embeddings, np.array([[1, 0], [0.6, 0.8]], np.float32))
    assert read.metadata["normalised"] == "when read"
    assert "normalised" not in read_metadata(tmp_path / "a_b_image_embeddings.csv")


def test_embeddings_read_from_the_released_code_can_be_saved(tmp_path):
    (tmp_path / "a_b_image_embeddings.csv").write_text(IMAGES["plain"])
    (tmp_path / "a_b_text_embeddings.csv").write_text("0,1,label\n1,0,cat\n0,1,dog\n")
    read = load_embeddings(tmp_path / "a_b_image_embeddings.csv")
    assert same(load_embeddings(save_embeddings(tmp_path / "y", read)), read)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("", "is empty"),
        ("0,1\n1,0\n", "has no label column; one of its columns must be called label, labels, target, class"),
        ("0,1,label,class\n1,0,cat,cat\n", "two label columns, 'label' and 'class'"),
        ("0,1,label\n1,0,bird\n", r"the label 'bird', which is neither a class name \(cat, dog\) nor a number in 0\.\.1"),
        ("0,1,label\n1,0,2\n", "the label '2'"),
        ("0,1,label\n1,0,0.5\n", "the label '0.5'"),
        ("0,1,label\n1,x,cat\n", "is not a table of numbers with a label column: could not convert string to float: 'x'"),
        ("0,1,label\n1,,cat\n", "is not a table of numbers"),
        ("0,1,label\n1,0,cat\n1\n", "is not a table of numbers"),
        ("0,1,label\n1,0,cat,5\n", "is not a table of numbers.*does not match length of data"),
        ("0,1,label\n1,nan,cat\n", "not finite in row 0"),
        ("0,1,label\n1,1e39,cat\n", "not finite in row 0"),
        ("0,1,label\n", "at least one row"),
        ("label\ncat\n", "at least one row"),
        ("0,1,2,label\n1,0,0,cat\n", "image_embeddings have 3 dimensions, text_embeddings 2"),
    ],
)
def test_csv_files_that_are_not_embeddings(tmp_path, images, message):
    (tmp_path / "x_image_embeddings.csv").write_text(images)
    (tmp_path / "x_text_embeddings.csv").write_text("0,1,label\n1,0,cat\n0,1,dog\n")
    refused(tmp_path / "x_image_embeddings.csv", message)


def test_half_of_a_pair(tmp_path):
    (tmp_path / "x_image_embeddings.csv").write_text(IMAGES["plain"])
    with pytest.raises(UserError, match=r"No such file: '.*x_text_embeddings\.csv'"):
        load_embeddings(tmp_path / "x_image_embeddings.csv")


def test_a_csv_file_of_another_name(tmp_path):
    refused(tmp_path / "scores.csv", "its name must contain 'image_embeddings' or 'text_embeddings'")


def test_a_pair_of_two_different_runs(tmp_path):
    save_embeddings(tmp_path / "x", random_embeddings(), "csv")
    path = tmp_path / "x_text_embeddings.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row.replace("0.", "0.0", 1) for row in rows)]) + "\n")
    with pytest.raises(UserError, match="is damaged or was edited"):
        load_embeddings(path)


def test_a_damaged_metadata_sidecar(tmp_path):
    path = save_embeddings(tmp_path / "x", random_embeddings(), "csv")
    (tmp_path / "x_metadata.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match=r"x_metadata\.json' is not the metadata of embeddings"):
        load_embeddings(path)
