"""``hub:ORG/NAME``: any classification set on the hub, here from local copies."""

import pyarrow as pa
import pytest

from common.errors import UserError
from datasets.registry import load_task
from tests.datasets.parquet_files import png, shades_of, write_parquet, write_shard


@pytest.fixture
def birds(tmp_path):
    return tmp_path / "hub" / "me" / "birds"


def load(data_dir, split="test", name="hub:me/birds", **options):
    return load_task(name, split, data_dir=data_dir, **options)


def test_class_labels(birds, tmp_path):
    write_parquet(birds / "data/train-00000-of-00001.parquet", [0, 1] * 5, names=["owl", "wren"])
    write_parquet(birds / "data/test-00000-of-00001.parquet", [1], shades=[40], names=["owl", "wren"])
    test = load(tmp_path)
    assert (test.name, test.labels.tolist(), test.classnames, shades_of(test)) == ("hub:me/birds", [1], ("owl", "wren"), [40])
    assert test.templates == ("a photo of a {c}",)
    assert [len(load(tmp_path, split, val_p=0.2)) for split in ("train", "val")] == [8, 2]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_a_validation_split_under_its_names(birds, tmp_path, name):
    write_parquet(birds / "data/train-00000-of-00001.parquet", [0, 1], names=["owl", "wren"])
    write_parquet(birds / f"data/{name}-00000-of-00001.parquet", [1], shades=[9], names=["owl", "wren"])
    assert shades_of(load(tmp_path, "val")) == [9]
    assert len(load(tmp_path, "train")) == 2
    with pytest.raises(UserError, match=f"has no split 'test'; it has: .*{name}"):
        load(tmp_path, "test")


def test_labels_without_names_have_the_classes_of_the_training_split(birds, tmp_path):
    write_parquet(birds / "train.parquet", ["wren", "owl", "NA"], label="labels", kind=pa.string())
    write_parquet(birds / "test.parquet", ["wren"], label="labels", kind=pa.string())
    test = load(tmp_path)
    assert (test.classnames, test.labels.tolist()) == (("NA", "owl", "wren"), [2])
    write_parquet(birds / "test.parquet", ["wern"], label="labels", kind=pa.string())
    with pytest.raises(UserError, match="has the label 'wern', which the training images do not have"):
        load(tmp_path)


def test_numbers_without_names(birds, tmp_path):
    write_parquet(birds / "train.parquet", [10, 2, 0], marked=False)
    write_parquet(birds / "test.parquet", [2], marked=False)
    assert (load(tmp_path).classnames, load(tmp_path).labels.tolist()) == (("0", "2", "10"), [1])


def test_configurations(birds, tmp_path):
    for config, label in (("small", 0), ("large", 1)):
        write_parquet(birds / config / "test-00000-of-00001.parquet", [label], names=["owl", "wren"])
    assert load(tmp_path, name="hub:me/birds/large").labels.tolist() == [1]
    assert load(tmp_path, name="hub:me/birds/large").name == "hub:me/birds/large"
    with pytest.raises(UserError, match=r"several configurations: large, small; name one, as in hub:me/birds/large\."):
        load(tmp_path)
    with pytest.raises(UserError, match="Unknown configuration of 'me/birds' 'smal'; did you mean 'small'"):
        load(tmp_path, name="hub:me/birds/smal")
    configs = "".join(f"- config_name: {name}\n  data_files: [{{split: test, path: {name}/*}}]\n" for name in ("small", "large"))
    (birds / "README.md").write_text(f"---\nconfigs:\n{configs}  default: true\n---\n")
    assert load(tmp_path).labels.tolist() == [1]
    assert load(tmp_path, name="hub:me/birds/small").labels.tolist() == [0]


@pytest.mark.parametrize("files", ["odd/one.parquet", "[odd/one.parquet]", "[{path: odd/one.parquet}]"])
def test_a_card_that_names_files_only(birds, tmp_path, files):
    write_parquet(birds / "odd/one.parquet", [1, 0] * 3, names=["owl", "wren"])
    (birds / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n")
    assert [len(load(tmp_path, split, val_p=0.3)) for split in ("train", "val")] == [4, 2]


def test_a_card_without_files_says_nothing(birds, tmp_path):
    write_parquet(birds / "data/test-00000-of-00001-0123456789abcdef.parquet", [1], names=["owl", "wren"])
    (birds / "README.md").write_text("---\nconfigs:\n- config_name: default\nlicense: mit\n---\n")
    assert len(load(tmp_path)) == 1
    (birds / "README.md").write_text("no metadata")
    assert len(load(tmp_path)) == 1
    for configs in ("[", "[default]", "3", "[{data_files: 3}]"):
        (birds / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")
        with pytest.raises(UserError, match=r"metadata at the head of '.*README.md' are not readable"):
            load(tmp_path)


def test_shards_with_their_notes(birds, tmp_path):
    write_shard(birds / "test/0.tar", [("s0.cls", b"1"), ("s0.webp", png(8))])
    (birds / "classnames.txt").write_text("owl\nwren\n")
    (birds / "zeroshot_classification_templates.txt").write_text("a bird: {c}\n")
    test = load(tmp_path)
    assert (test.classnames, test.labels.tolist(), test.templates) == (("owl", "wren"), [1], ("a bird: {c}",))


def test_wrong_names_and_sets(birds, tmp_path):
    for name in ("birds", "a/b/", "a b/c"):
        with pytest.raises(UserError, match=f"'hub:{name}' does not name a data set on the hub; write hub:ORG/NAME"):
            load(tmp_path, name=f"hub:{name}")
    write_parquet(birds / "test.parquet", [0], column="a", label="b", marked=False)
    with pytest.raises(UserError, match=r"'me/birds' on the hub has no column of labels .*columns are: a, b"):
        load(tmp_path)
