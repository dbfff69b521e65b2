"""``csv:FILE`` and ``parquet:FILE``: splits, classes, names, groups, and one test per thing that can be wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from common.errors import UserError
from datasets.own.tables import captions_of, read_csv_table
from datasets.registry import load_task, task_slug
from tests.datasets.parquet_files import IMAGE, class_label, metadata, png, shades_of, write_parquet


@pytest.fixture
def table(tmp_path):
    """Write a CSV file beside 30 images img/00.png ...; the shade of an image is its number."""
    (tmp_path / "img").mkdir()
    for number in range(30):
        (tmp_path / f"img/{number:02d}.png").write_bytes(png(number))

    def write(text, name="list.csv", encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding, newline="")
        return f"csv:{tmp_path / name}"

    return write


def rows(labels, header="path,label", **more):
    lines = [f"img/{number:02d}.png,{label}" for number, label in enumerate(labels)]
    return "\n".join([header, *lines]) + "\n"


def listed(columns, *lines):
    return "\n".join([columns, *lines]) + "\n"


THREE = listed("path,label,split", "img/02.png,dog,train", "img/01.png,cat,train", "img/03.png,cat,Test", "img/04.png,dog,VALID")


# --- splits --------------------------------------------------------------------------------------------------------


def test_a_split_column(table):
    train, val, test = (load_task(table(THREE), split) for split in ("train", "val", "test"))
    assert (train.sample_ids, train.labels.tolist()) == (["img/02.png", "img/01.png"], [1, 0])
    assert (val.sample_ids, val.labels.tolist(), shades_of(val)) == (["img/04.png"], [1], [4])
    assert (test.sample_ids, test.labels.tolist(), test.labels.dtype) == (["img/03.png"], [0], np.int64)
    assert train.classnames == ("cat", "dog")
    assert (test.split, test.templates) == ("test", ("a photo of a {c}",))
    assert test.name == table(THREE)
    assert task_slug(test.name).startswith("list.csv-")


def test_validation_is_drawn_from_train(table):
    text = listed("path,label,split", *(f"img/{i:02d}.png,{'ab'[i % 2]},{'test' if i > 19 else 'train'}" for i in range(30)))
    parts = [load_task(table(text), split, val_p=0.25) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [15, 5, 10]


def test_without_a_split_column_a_fifth_of_each_class_is_the_test_split(table):
    where = table(rows("a" * 10 + "b" * 20))
    train, val, test = (load_task(where, split, val_p=0.25) for split in ("train", "val", "test"))
    assert np.bincount(test.labels).tolist() == [2, 4]
    assert (len(train), len(val)) == (18, 6)
    assert sorted(train.sample_ids + val.sample_ids + test.sample_ids) == [f"img/{i:02d}.png" for i in range(30)]
    reordered = "\n".join([*rows("a" * 10 + "b" * 20).split("\n")[:1], *reversed(rows("a" * 10 + "b" * 20).split()[1:])])
    assert sorted(load_task(table(reordered, "other.csv"), "test").sample_ids) == sorted(test.sample_ids)


def test_fingerprint(table, tmp_path):
    before = load_task(table(THREE), "test").fingerprint
    assert load_task(table(THREE), "test").fingerprint == before
    (tmp_path / "img/03.png").write_bytes(png(99))
    assert load_task(table(THREE), "test").fingerprint != before


# --- classes -------------------------------------------------------------------------------------------------------


def classes(where):
    task = load_task(where, "test")
    return task.classnames


def all_labels(where):
    parts = [load_task(where, split, val_p=0.3) for split in ("train", "val", "test")]
    return dict(sorted((name, part.classnames[label]) for part in parts for name, label in zip(part.sample_ids, part.labels, strict=True)))


def test_class_names_stay_as_they_are(table):
    names = ["NA", "null", "007", "nan", "None", "a_b", "-1", "1e3", "true"]
    where = table(rows(names * 3))
    assert classes(where) == tuple(sorted(names))
    assert list(all_labels(where).values()) == names * 3


def test_numbers_are_in_their_order(table):
    assert classes(table(rows([10, 2, 0] * 3))) == ("0", "2", "10")
    assert classes(table(rows(["10", "2", "00"] * 3))) == ("00", "10", "2")


def test_numbers_with_names(table):
    text = listed("path,label,classname", *(f"img/{i:02d}.png,{i % 3 * 5},{('wren', 'owl', 'NA')[i % 3]}" for i in range(12)))
    assert classes(table(text)) == ("wren", "owl", "NA")


def test_columns_that_differ_in_capitals_only(table):
    with pytest.raises(UserError, match=r"has two columns 'label' that differ in capitals only; rename one\."):
        classes(table("path,label,Label\nimg/00.png,a,b\nimg/01.png,b,a\n"))


@pytest.mark.parametrize("header", ["path,class", "Image, ClassName", "filepath,class_name", "filename,labels"])
def test_names_of_columns(table, header):
    assert classes(table(rows("ab" * 5, header))) == ("a", "b")


def test_contradicting_names(table):
    with pytest.raises(UserError, match=r"has two class names for the label '1': 'owl' and 'wren'\."):
        classes(table(listed("path,label,class", "img/00.png,0,crow", "img/01.png,1,owl", "img/02.png,1,wren")))
    with pytest.raises(UserError, match=r"has two classes named 'owl'"):
        classes(table(listed("path,label,class", "img/00.png,0,owl", "img/01.png,1,owl")))


def test_classnames_and_templates_beside_the_table(table, tmp_path):
    (tmp_path / "classnames.txt").write_text("crow\nowl\nwren\nkite\n")
    (tmp_path / "templates.txt").write_text("my {}\n")
    assert load_task(table(rows([2, 0] * 5)), "test").templates == ("my {c}",)
    assert set(all_labels(table(rows([2, 0] * 5))).values()) == {"wren", "crow"}
    assert classes(table(rows([2, 0] * 5))) == ("crow", "owl", "wren", "kite")
    with pytest.raises(UserError, match="has 4 class names for 2 class folders"):
        classes(table(rows([4, 0] * 5)))
    (tmp_path / "classnames.txt").write_text("2: wren\n0: crow\n5: kite\n")
    assert classes(table(rows([2, 0] * 5))) == ("crow", "wren")
    (tmp_path / "classnames.txt").write_text("b: wren\na: crow\n")
    assert classes(table(rows("ab" * 5))) == ("crow", "wren")
    (tmp_path / "classnames.txt").write_text("crow\ncrow\n")
    with pytest.raises(UserError, match=r"classnames.txt' has two classes named 'crow'"):
        classes(table(rows([1, 0] * 5)))


# --- groups and captions -------------------------------------------------------------------------------------------


def test_groups(table):
    text = listed("path,label,split,group", *(f"img/{i:02d}.png,{i % 2},{'train' if i < 4 else 'test'},{'xyz'[i % 3]}" for i in range(8)))
    test = load_task(table(text), "test")
    assert (test.groups.kind, test.groups.names, test.groups.labels.tolist()) == ("group", ("x", "y", "z"), [1, 2, 0, 1])


def test_captions(table, tmp_path):
    table(listed("path,label,caption", 'img/00.png,a,"a cat, with\na hat"', "img/01.png,b,nan"))
    assert captions_of(read_csv_table(tmp_path / "list.csv")) == {"img/00.png": "a cat, with\na hat", "img/01.png": "nan"}
    table(THREE)
    with pytest.raises(UserError, match="has no column 'caption'; its columns: path, label, split"):
        captions_of(read_csv_table(tmp_path / "list.csv"))


# --- what can be wrong with a CSV file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (rows("ab", "file_name,label"), "has no column 'path' of image files; its columns: file_name, label"),
        (rows("ab", "path,kind"), "has no column 'label' or 'classname'; its columns: path, kind"),
        (rows(["a", "", "b"]), r"Line 3 of '.*' has nothing in the column 'label'"),
        (rows(["a", "  ", "b"]), r"Line 3 of '.*' has nothing in the column 'label'"),
        (listed("path,label", "img/00.png,a", ",b"), r"Line 3 of '.*' has nothing in the column 'path'"),
        (listed("path,label", "img/00.png,a", "", "img/01.png"), r"Line 4 of '.*' has nothing in the column 'label'"),
        (listed("path,label,class", "img/00.png,0,a", "img/01.png,1,"), r"Line 3 of '.*' has nothing in the column 'class'"),
        (listed("path,caption,label", 'img/00.png,"a\nb",a', "img/01.png,x,"), r"Line 4 of '.*' has nothing in the column 'label'"),
        (
            listed("path,label,split", "img/00.png,a,train", "img/01.png,b,tset"),
            r"Line 3 of '.*' has the split 'tset'; expected train, val",
        ),
        (listed("path,label,split", "img/00.png,a,train", "img/01.png,b,"), r"Line 3 of '.*' has nothing in the column 'split'"),
        (listed("path,label,split", "img/00.png,a,train", "img/01.png,b,train"), "no images of the split 'test'; it has: train"),
        (listed("path,label,group", "img/00.png,a,x", "img/01.png,b,"), r"Line 3 of '.*' has nothing in the column 'group'"),
        (rows("aaa"), "has only one class, 'a'; at least two classes are needed"),
        (listed("path,label", "img/00.png,a", "img/01.png,b", "img/00.png,b"), "Line 4 .* lists the image 'img/00.png' a second time"),
        (listed("path,label", "00.png,a", "01.png,b"), r"Line 2 .* names the image '00.png', which is not there; paths are relative to"),
        (listed("path,label", "img/00.png,a", "img/01.png,b,c"), "is not a readable CSV table"),
        (listed("path,label", "img/00.png,a", 'img/01.png,"b'), "is not a readable CSV table"),
        ("", "is not a readable CSV table"),
        ("path,label\n", "lists no image"),
    ],
)
def test_mistakes(table, text, sentence):
    with pytest.raises(UserError, match=sentence) as told:
        load_task(table(text), "test")
    assert "\n" not in str(told.value)


def test_missing_and_foreign_files(table, tmp_path):
    with pytest.raises(UserError, match=r"Cannot read '.*none.csv': No such file"):
        load_task(f"csv:{tmp_path}/none.csv", "test")
    with pytest.raises(UserError, match="is not a readable CSV table"):
        load_task(table("path,label\nimg/00.png,café\n", encoding="latin-1"), "test")


def test_a_byte_order_mark_absolute_paths_and_blank_lines(table, tmp_path):
    text = "\ufeffpath,label,split\r\n" + f"{tmp_path}/img/07.png, a,test\r\n\r\nimg/08.png,b,test\r\n\r\n"
    task = load_task(table(text), "test")
    assert (task.classnames, shades_of(task)) == (("a", "b"), [7, 8])
    assert task.sample_ids == [f"{tmp_path}/img/07.png", "img/08.png"]


# --- parquet -------------------------------------------------------------------------------------------------------


def load_parquet(path, split="test", **options):
    return load_task(f"parquet:{path}", split, data_dir=path.parent / "data", **options)


def test_parquet_of_paths(table, tmp_path):
    cells = {"Path": [f"img/{i:02d}.png" for i in range(4)], "label": [1, 0, 1, 0], "class": list("baba"), "split": ["test"] * 4}
    pq.write_table(pa.table(cells), tmp_path / "x.parquet")
    task = load_parquet(tmp_path / "x.parquet")
    assert (task.labels.tolist(), task.classnames, shades_of(task)) == ([1, 0, 1, 0], ("a", "b"), [0, 1, 2, 3])


def test_parquet_of_images_is_divided(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [0, 1] * 10, names=["owl", "wren"])
    train, val, test = (load_parquet(path, split, val_p=0.25) for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [12, 4, 4]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert test.classnames == ("owl", "wren")
    assert [f"x-{shade:06d}" for shade in shades_of(test)] == test.sample_ids


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([True, False]), ("0", "1")),
        (pa.array(["b", "NA"]), ("NA", "b")),
        (pa.array(["b", "a"]).dictionary_encode(), ("a", "b")),
        (pa.array([3, 20], pa.uint8()), ("3", "20")),
    ],
)
def test_kinds_of_labels(tmp_path, labels, expected):
    images = pa.array([png(1), png(2)])
    pq.write_table(pa.table({"image": images, "label": labels, "split": ["test"] * 2}), tmp_path / "x.parquet")
    task = load_parquet(tmp_path / "x.parquet")
    assert (task.classnames, task.labels.tolist()) == (expected, [1, 0] if expected != ("3", "20") else [0, 1])


def test_mistakes_in_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": ["a", None]}), path)
    with pytest.raises(UserError, match=r"Row 2 of '.*' has nothing in the column 'label'"):
        load_parquet(path)
    features = metadata(label=class_label("owl", "wren"))
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": [0, 2]}).replace_schema_metadata(features), path)
    with pytest.raises(UserError, match=r"Row 2 of '.*' has nothing in the column 'classname'"):
        load_parquet(path)
    pq.write_table(pa.table({"a": pa.array([None, None], IMAGE), "b": pa.array([None, None], IMAGE), "label": [0, 1]}), path)
    with pytest.raises(UserError, match="has no column 'path' of image files"):
        load_parquet(path)
    pq.write_table(pa.table({"image": [png(1)], "label": [[0]]}), path)
    with pytest.raises(UserError, match="expected whole numbers or texts"):
        load_parquet(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is not a readable parquet file"):
        load_parquet(path)
    with pytest.raises(UserError, match=r"No such file"):
        load_parquet(tmp_path / "none.parquet")


def test_images_may_be_of_any_format(table, tmp_path):
    Image.new("L", (4, 4), 70).save(tmp_path / "img/x.jpg")
    assert shades_of(load_task(table(listed("path,label,split", "img/x.jpg,a,test", "img/00.png,b,train")), "test")) == [70]
