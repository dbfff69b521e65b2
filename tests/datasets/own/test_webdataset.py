"""``wds:PATTERN``: patterns, splits, labels, and damaged shards."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from datasets import tar_images
from datasets.own.webdataset import find_shards
from datasets.registry import load_task
from tests.datasets.parquet_files import png, shades_of, write_shard


def samples(start, labels):
    """Two files per image, as WebDataset writes them; the shade of an image is its number."""
    files = []
    for number, label in enumerate(labels, start):
        files += [(f"s{number:04d}.cls", str(label).encode()), (f"s{number:04d}.png", png(number))]
    return files


@pytest.fixture
def clip_benchmark(tmp_path):
    """The layout of clip-benchmark/wds_*."""
    root = tmp_path / "wds_birds"
    write_shard(root / "train/0.tar", samples(0, [0, 1, 2] * 3))
    write_shard(root / "train/1.tar", samples(9, [2, 1]))
    write_shard(root / "test/0.tar", samples(100, [2, 0]))
    (root / "classnames.txt").write_text("owl\nwren\nkite\nnever seen\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}, a bird.\n")
    return root


def load(where, split="test", **options):
    """The task, with ``data/`` in the folder of the shards, or beside it."""
    data_dir = Path(str(where).split("{")[0] + "-").parent / "data"
    return load_task(f"wds:{where}", split, data_dir=data_dir, **options)


def test_clip_benchmark_folder(clip_benchmark):
    train, val, test = (load(clip_benchmark, split, val_p=0.3) for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (8, 3)
    assert (test.labels.tolist(), test.labels.dtype, test.sample_ids) == ([2, 0], np.int64, ["test/0/s0100", "test/0/s0101"])
    assert shades_of(test) == [100, 101]
    assert test.classnames == ("owl", "wren", "kite", "never seen")
    assert test.templates == ("a photo of a {c}, a bird.",)
    assert (test.name, test.split) == (f"wds:{clip_benchmark}", "test")
    assert [shade for part in (train, val) for shade in sorted(shades_of(part))] != list(range(11))
    assert sorted(shades_of(train) + shades_of(val)) == list(range(11))
    assert {"train/1/s0009", "train/1/s0010"} <= set(train.sample_ids + val.sample_ids)


def test_the_same_by_a_pattern(clip_benchmark):
    whole, named = load(clip_benchmark), load(f"{clip_benchmark}/{{split}}/*.tar")
    assert whole.fingerprint == named.fingerprint == load(clip_benchmark).fingerprint
    assert whole.classnames == named.classnames


def test_pickled_samples_read_on(clip_benchmark):
    test = load(clip_benchmark)
    copy = pickle.loads(pickle.dumps(test.samples))
    assert [copy.digest(index) for index in (1, 0)] == [test.samples.digest(index) for index in (1, 0)]


def test_the_index_is_kept_until_a_shard_changes(clip_benchmark, monkeypatch):
    load(clip_benchmark)
    read = tar_images._write_index
    written = []
    monkeypatch.setattr(tar_images, "_write_index", lambda shard, target: (written.append(shard), read(shard, target)))
    load(clip_benchmark)
    assert written == []
    write_shard(clip_benchmark / "test/0.tar", samples(100, [2, 0, 1]))
    assert len(load(clip_benchmark)) == 3
    assert written == [clip_benchmark / "test/0.tar"]


def test_one_set_is_divided(tmp_path):
    for shard in range(3):
        write_shard(tmp_path / f"birds-{shard:03d}.tar", samples(10 * shard, "ab" * 5))
    parts = [load(f"{tmp_path}/birds-{{000..002}}.tar", split, val_p=0.25) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert np.bincount(parts[2].labels).tolist() == [3, 3]
    assert parts[0].classnames == ("a", "b")
    assert parts[0].templates == ("a photo of a {c}",)
    assert sorted(shade for part in parts for shade in shades_of(part)) == list(range(30))
    assert load(f"{tmp_path}/birds-*.tar").listing == parts[2].listing


def test_a_validation_split(tmp_path):
    for start, name in enumerate(("train", "valid", "test")):
        write_shard(tmp_path / f"x-{name}-0.tar", samples(start, [start % 2]))
    assert shades_of(load(f"{tmp_path}/x-{{split}}-{{0..0}}.tar", "val")) == [1]
    assert load(f"{tmp_path}/x-{{split}}-*.tar", "test").classnames == ("0", "1")
    (tmp_path / "x-test-0.tar").unlink()
    with pytest.raises(UserError, match="has no images of the split 'test'; it has: train, val"):
        load(f"{tmp_path}/x-{{split}}-*.tar", "test")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{a,c}.tar", ["a", "c"]),
        ("s{08..10}.tar", ["s08", "s09", "s10"]),
        ("n{8..10}.tar", ["n8", "n9", "n10"]),
        ("?.tar", ["a", "b", "c"]),
        ("[ab].tar", ["a", "b"]),
        ("{n8,s{09..10}}.tar", ["n8", "s09", "s10"]),
        ("{a,d}.tar", None),
        ("{b,s*}.tar", ["b", "s08", "s09", "s10"]),
        ("a.tar", ["a"]),
    ],
)
def test_patterns(tmp_path, pattern, found):
    for name in ("a", "b", "c", "s08", "s09", "s10", "n8", "n9", "n10"):
        (tmp_path / f"{name}.tar").touch()
    if found is None:
        with pytest.raises(UserError, match=r"The shard .* is missing"):
            find_shards(f"{tmp_path}/{pattern}")
    else:
        root, shards = find_shards(f"{tmp_path}/{pattern}")
        assert (root, [path.stem for path, _ in shards]) == (tmp_path, found)


def test_labels_in_json_and_names_in_cls(tmp_path):
    write_shard(
        tmp_path / "a.tar",
        [
            *(("d/1.jpg", png(1)), ("d/1.json", b'{"label": "owl"}'), ("d/1.txt", b"a caption")),
            *(("2.jpg", png(2)), ("2.cls", b"wren\n")),
            *(("./3.b.c", b"note"), ("3.jpg", png(3)), ("3.cls", b"owl"), ("__MACOSX/._4.jpg", b""), ("._4.cls", b"")),
        ],
    )
    images, labels = tar_images.read_shards([tmp_path / "a.tar"], ["a"], tmp_path)
    assert [images.sample_id(index) for index in range(len(images))] == ["a/d/1", "a/2", "a/3"]
    assert labels.tolist() == ["owl", "wren", "owl"]
    assert [images.read(index) for index in range(3)] == [png(1), png(2), png(3)]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([("1.jpg", b"x")], "has no label for the sample '1'; expected one image and a label, '1.cls' or \"label\" in '1.json'"),
        ([("1.jpg", b"x"), ("1.txt", b"owl")], "has no label for the sample '1'"),
        ([("1.jpg", b"x"), ("1.json", b'{"text": 1}')], "has no label for the sample '1'"),
        ([("1.jpg", b"x"), ("1.png", b"x"), ("1.cls", b"0")], "has 2 images for the sample '1'"),
        ([("1.cls", b"0")], "has 0 images for the sample '1'"),
        ([("1.jpg", b"x"), ("1.json", b"{")], "The label of the sample '1' in '.*a.tar' is not readable"),
        ([("1.jpg", b"x"), ("1.json", b"[1]")], "The label of the sample '1' in '.*a.tar' is not readable"),
        ([("1.jpg", b"x"), ("1.cls", b"\xff")], "The label of the sample '1' in '.*a.tar' is not readable"),
        (
            [("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"1"), ("1.txt", b"x"), ("1.cls", b"0")],
            "holds the sample '1' twice",
        ),
        ([("notes.txt", b"x")], "holds no image; expected files such as KEY.jpg and KEY.cls"),
        ([("1.jpg", b"x"), ("1.cls", b"0")], "has only one class, '0'"),
    ],
)
def test_mistakes_in_shards(tmp_path, files, sentence):
    write_shard(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=sentence) as told:
        load(f"{tmp_path}/a.tar")
    assert "\n" not in str(told.value)


def plain(files):
    """A shard without the padding that tarfile adds to its end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()[: archive.offset]


@pytest.mark.parametrize("end", [-1, -512, -600, -1100, -1500, 3000, 1536, 100, 0], ids=str)
def test_torn_shards(tmp_path, end):
    whole = plain(samples(0, "abab"))
    (tmp_path / "a.tar").write_bytes(whole[:end])
    with pytest.raises(UserError, match=r"'.*a.tar' is cut off, damaged, or no uncompressed tar archive \(.*\); fetch or unpack it again"):
        load(f"{tmp_path}/a.tar")


def test_a_whole_shard_without_its_end_is_torn_too(tmp_path):
    (tmp_path / "a.tar").write_bytes(plain(samples(0, "abab")))
    with pytest.raises(UserError, match="it has no end"):
        load(f"{tmp_path}/a.tar")


def test_damaged_headers_and_compressed_shards(tmp_path):
    path = write_shard(tmp_path / "a.tar", samples(0, "abab"))
    whole = path.read_bytes()
    path.write_bytes(whole[:2048] + b"x" * 512 + whole[2560:])
    with pytest.raises(UserError, match="is cut off, damaged"):
        load(path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match="no uncompressed tar archive"):
        load(path)


def test_a_shard_that_becomes_shorter(clip_benchmark):
    test = load(clip_benchmark)
    (clip_benchmark / "test/0.tar").write_bytes(b"")
    with pytest.raises(Exception, match="test/0/s0100: the shard has become shorter"):
        test.samples.image(0)
    with pytest.raises(IndexError, match="sample 13 of 13"):
        test.samples.samples.read(13)


def test_missing_shards(tmp_path):
    (tmp_path / "empty").mkdir()
    for where, sentence in [
        (f"{tmp_path}/a-*.tar", "There is no shard"),
        (f"{tmp_path}/{{split}}.tar", "There is no shard"),
        (f"{tmp_path}/a-{{0..1}}.tar", "The shard '.*a-0.tar' is missing"),
        (f"{tmp_path}/empty", "The folder '.*empty' holds no shards; expected '.*empty/train/"),
        ("https://x/{0..1}.tar", "is not on this machine; download the shards"),
        ("pipe:curl x", "is not on this machine; download the shards"),
    ]:
        with pytest.raises(UserError, match=sentence):
            load_task(f"wds:{where}", "test", data_dir=tmp_path)
