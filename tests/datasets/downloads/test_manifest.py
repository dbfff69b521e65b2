"""The table of downloads: complete, in agreement with the libraries it was taken from, and with what the loaders look for."""

import re
from pathlib import Path

import pytest
from torchvision import datasets as torchvision_sets

from common.errors import UserError
from datasets.downloads.entries import ARCHIVES, Download, Entry, Item, read_manifest
from datasets.downloads.manifest import ENTRIES, find_entry, got_by_hand
from datasets.downloads.report import instructions, table
from datasets.places import find
from datasets.registry import SOURCES
from datasets.retrieval.table import RETRIEVAL
from datasets.sources.fmow import wilds_module

PACKAGED = {"Digits", *(name for name in (*SOURCES, *RETRIEVAL) if name.startswith(("Shapes-", "Glyphs-")))}
DOWNLOADS = [(entry.name, download) for entry in ENTRIES.values() for download in entry.downloads]
FETCHED = [(name, download) for name, download in DOWNLOADS if not download.by_hand]


@pytest.mark.parametrize("name", sorted({*SOURCES, *RETRIEVAL, "revisitop1m"} - PACKAGED))
def test_every_data_set_can_be_had_or_is_explained(name):
    text = instructions(find_entry(name), Path("data"))
    assert "http" in text
    assert "fetched by: python download_datasets.py --datasets" in text or "by hand:" in text
    assert "{" not in re.sub(r"\{train,val,test\}", "", text)  # no placeholder is left


@pytest.mark.parametrize(("name", "download"), DOWNLOADS, ids=lambda value: value if isinstance(value, str) else "")
def test_entries_are_well_formed(name, download):
    assert re.match(r"(https?|ftp)://", download.url)
    assert download.items
    for item in download.items:
        assert not item.path.startswith("/")
        assert ".." not in item.path
    for checksum in (download.checksum, *(item.checksum for item in download.items)):
        assert checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)


@pytest.mark.parametrize(("name", "download"), FETCHED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_fetched_is_kept_or_unpacked(name, download):
    assert download.is_plain or download.filename.endswith(ARCHIVES)
    assert download.size > 0


def test_no_two_items_have_one_place():
    paths = [item.path for _, download in DOWNLOADS for item in download.items]
    assert len(paths) == len(set(paths))


def by_url():
    return {download.url.replace("https://", "http://"): download for _, download in FETCHED}


def in_torchvision():
    """(url, md5) of torchvision's files of data sets that the table has too."""
    sets = torchvision_sets
    for of in (sets.MNIST, sets.FashionMNIST, sets.KMNIST):
        yield from ((of.mirrors[0] + file, md5) for file, md5 in of.resources)
    yield from ((url, md5) for split, (url, _, md5) in sets.SVHN.split_list.items() if split != "extra")
    yield sets.EMNIST.url, sets.EMNIST.md5
    yield sets.STL10.url, sets.STL10.tgz_md5
    for of in (sets.DTD, sets.Food101, sets.RenderedSST2):
        yield of._URL, of._MD5
    yield sets.SUN397._DATASET_URL, sets.SUN397._DATASET_MD5
    yield from sets.OxfordIIITPet._RESOURCES
    yield from ((sets.Flowers102._download_url_prefix + file, md5) for file, md5 in sets.Flowers102._file_dict.values())


@pytest.mark.parametrize(("url", "md5"), list(in_torchvision()))
def test_addresses_and_sums_are_torchvisions(url, md5):
    assert by_url()[url.replace("https://", "http://")].checksum == f"md5:{md5}"


def test_sums_of_pcam_are_torchvisions():
    sums = {download.items[0].path: download.checksum for download in find_entry("PCAM").downloads}
    for files in torchvision_sets.PCAM._FILES.values():
        for file, _, md5 in files.values():
            assert sums[f"pcam/{file}"] == f"md5:{md5}"


@pytest.mark.parametrize("module", ["eurosat", "gtsrb", "caltech"])
def test_sums_in_the_code_of_torchvision(module):
    code = (Path(torchvision_sets.__file__).parent / f"{module}.py").read_text()
    downloads = [
        download for name in ("EuroSAT", "GTSRB", "Caltech101") for download in find_entry(name).downloads if download.filename in code
    ]
    assert downloads
    for download in downloads:
        assert download.checksum.removeprefix("md5:") in code


def test_sums_of_unpacked_files_are_torchvisions():
    sums = {item.path.partition("/")[2]: item.checksum for item in find_entry("STL10").downloads[0].items}
    for file, md5 in torchvision_sets.STL10.train_list[:2] + torchvision_sets.STL10.test_list:
        assert sums[file] == f"md5:{md5}"
    (fer,) = find_entry("FER2013").downloads
    assert fer.items[0].checksum == f"md5:{torchvision_sets.FER2013._RESOURCES['icml'][1]}"


def test_the_address_of_fmow_is_that_of_wilds():
    fmow = wilds_module().FMoWDataset._versions_dict["1.1"]  # importing wilds otherwise would lift Pillow's limit for the tests after it
    (download,) = find_entry("FMoW-id").downloads
    assert (download.url, download.size) == (fmow["download_url"], fmow["compressed_size"])


def test_the_archive_of_newsgroups_is_scikit_learns():
    from sklearn.datasets._twenty_newsgroups import ARCHIVE

    (download,) = find_entry("20Newsgroups").downloads
    assert (download.url, download.checksum) == (ARCHIVE.url, f"sha256:{ARCHIVE.checksum}")


def test_the_table_has_a_line_for_each(tmp_path):
    lines = table(ENTRIES.values(), tmp_path).splitlines()
    assert lines[0].split() == ["data", "set", "there", "size", "how", "licence"]
    assert len(lines) == len(ENTRIES) + 1
    assert any(line.startswith("FMoW-id, FMoW-ood") for line in lines)
    assert max(map(len, lines)) < 132


@pytest.mark.parametrize("name", ["Cars", "UCF101", "ROxford5k"])
def test_instructions_by_hand_say_from_where_to_where(name, tmp_path):
    text = instructions(find_entry(name), tmp_path)
    for download in find_entry(name).downloads:
        assert f"get {download.filename} from {download.url}" in text
    assert f"{tmp_path}/archives/{name}/" in text


def test_unknown_names():
    with pytest.raises(UserError, match="Unknown data set 'EuroSTA'; did you mean 'EuroSAT'"):
        find_entry("EuroSTA")
    for name, why in (("Digits", "needs no files"), ("Glyphs-Greek", "needs no files"), ("csv:birds.csv", "is your own")):
        with pytest.raises(UserError, match=f"There is nothing to get for '{name}', which {why}"):
            find_entry(name)
    with pytest.raises(UserError, match="Unknown split convention"):
        find_entry("DTD@zhou")


@pytest.mark.parametrize(
    ("name", "wanted", "help_"),
    [
        ("DTD", "dtd/images", "get it with 'python download_datasets.py --datasets DTD --data-dir {}'"),
        ("DTD", "dtd/split_zhou_DescribableTextures.json", "see 'python download_datasets.py --list DTD --data-dir {}'"),
        ("Cars", "stanford_cars/cars_train", "see 'python download_datasets.py --list Cars --data-dir {}'"),
        ("FMoW-ood", "fmow_v1.1/images", "get it with 'python download_datasets.py --datasets FMoW-ood --data-dir {}'"),
        ("RenderedSST2", "rendered-sst2", "get it with 'python download_datasets.py --datasets RenderedSST2 --data-dir {}'"),
        ("ImageNet", "imagenet/train", "see 'python download_datasets.py --list ImageNet --data-dir {}'"),
    ],
)
def test_a_missing_data_set_says_what_helps(tmp_path, name, wanted, help_):
    with pytest.raises(UserError, match=re.escape(help_.format(tmp_path))):
        find(name, tmp_path, wanted)


def test_got_by_hand():
    assert got_by_hand("ImageNet", "imagenet/train/n01440764")
    assert got_by_hand("Cars", "stanford_cars")
    assert not got_by_hand("Caltech101", "caltech-101/101_ObjectCategories")
    assert not got_by_hand("nothing", "anywhere")


GOOD = '[{"name": "A", "home": "h", "licence": "l", "downloads": [{"url": "http://x/a.zip", "items": [{"path": "a/b"}]}]}]'


def test_a_manifest_of_ones_own(tmp_path):
    (tmp_path / "m.json").write_text(GOOD)
    assert read_manifest(tmp_path / "m.json") == {"A": Entry("A", "h", "l", (Download("http://x/a.zip", (Item("a/b"),)),))}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"home"', '"hom"', "Entry has no 'hom'"),
        ('"home": "h",', "", "missing 1 required"),
        ('"h"', "3", "3 is not of the kind"),
        ('{"path": "a/b"}', '"a/b"', "no object with the fields of Item"),
        ("a/b", "../b", "paths below the data folder"),
        ("a/b", "/b", "paths below the data folder"),
        ("a.zip", "a.rar", "'a.rar' is not an archive"),
        ('[{"path": "a/b"}]', "[]", "needs a file name and items"),
        ('"items"', '"checksum": "crc:1", "items"', "'crc:1' must begin with 'md5:' or 'sha256:'"),
        ('"items"', '"name": "../a.zip", "items"', "'../a.zip'|paths below the data folder"),
        ("http://x", "x", "must begin with http://"),
        ("[{", "{", "not readable JSON"),
    ],
)
def test_manifests_that_are_refused(tmp_path, old, new, message):
    assert old in GOOD
    (tmp_path / "m.json").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / "m.json")
