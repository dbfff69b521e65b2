"""Unpacking: all or nothing, and nothing outside of the data folder."""

import gzip
import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.downloads.entries import Download, Item
from datasets.downloads.unpack import UnpackError, unpack
from tests.helpers import ROOT, files_below

MEMBERS = {"set/images/a.jpg": b"A" * 500, "set/images/deep/b.jpg": b"B", "set/labels.txt": b"a 0\n", "set/README": b"not wanted"}
ITEMS = (Item("mine/images", "set/images", files=2), Item("mine/labels.txt", "set/labels.txt"))
WANTED = {"mine/images/a.jpg": b"A" * 500, "mine/images/deep/b.jpg": b"B", "mine/labels.txt": b"a 0\n"}


def tar(path, members, mode="w:gz", prefix=""):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def download(path, items=ITEMS, **more):
    return Download(f"http://x/{path.name}", items, **more)


def taken(path, tmp_path, items=ITEMS, **more):
    unpack(path, download(path, items, **more), items, tmp_path / "data")
    return files_below(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.tar.gz", tar),
        ("a.tgz", lambda path, members: tar(path, members, prefix="./")),
        ("a.tar", lambda path, members: tar(path, members, "w")),
        ("b.tar.gz", lambda path, members: tar(path, members, "w")),  # ImageNetV2 is a plain tar by that name
        ("a.zip", zipped),
    ],
)
def test_only_the_items(tmp_path, name, make):
    assert taken(make(tmp_path / name, MEMBERS), tmp_path) == WANTED
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def test_all_of_an_archive_without_a_folder(tmp_path):
    archive = tar(tmp_path / "a.tgz", {"x.jpg": b"x", "y.jpg": b"y"})
    assert taken(archive, tmp_path, (Item("mine/jpg", "", files=2),)) == {"mine/jpg/x.jpg": b"x", "mine/jpg/y.jpg": b"y"}


def test_an_archive_in_an_archive(tmp_path):
    inner = tar(tmp_path / "inner.tar.gz", MEMBERS).read_bytes()
    archive = zipped(tmp_path / "outer.zip", {"o/inner.tar.gz": inner, "__MACOSX/o": b""})
    assert taken(archive, tmp_path, nested="o/inner.tar.gz") == WANTED


def test_a_compressed_file(tmp_path):
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress(b"data"))
    assert taken(tmp_path / "x.h5.gz", tmp_path, (Item("pcam/x.h5"),)) == {"pcam/x.h5": b"data"}


def refused(archive, tmp_path, message, items=ITEMS, **more):
    with pytest.raises(UnpackError, match=message):
        taken(archive, tmp_path, items, **more)
    assert files_below(tmp_path / "data") == {}
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["../evil", "set/images/../../../evil", "/tmp/evil", "set/images/../../../../evil"])
@pytest.mark.parametrize(("suffix", "make"), [("tar.gz", tar), ("zip", zipped)])
def test_a_path_out_of_the_archive(tmp_path, name, suffix, make):
    refused(make(tmp_path / f"a.{suffix}", MEMBERS | {name: b"evil"}), tmp_path, "not safe to unpack: it would write")


@pytest.mark.parametrize("target", ["../../../../evil", "/etc/passwd", "../../../data/../../evil"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_out_of_the_archive_and_devices(tmp_path, kind, target):
    archive = tar(tmp_path / "a.tar", MEMBERS, "w")
    with tarfile.open(archive, "a") as opened:
        member = tarfile.TarInfo("set/images/link")
        member.type, member.linkname = kind, target
        opened.addfile(member)
    refused(archive, tmp_path, "cannot be unpacked")


def test_a_file_through_a_link(tmp_path):
    """A link to a folder outside, then a file below it: each name by itself looks harmless."""
    (tmp_path / "outside").mkdir()
    archive = tar(tmp_path / "a.tar", MEMBERS, "w")
    with tarfile.open(archive, "a") as opened:
        member = tarfile.TarInfo("set/images/link")
        member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        opened.addfile(member)
        opened.addfile(tarfile.TarInfo("set/images/link/evil"), io.BytesIO())
    refused(archive, tmp_path, "cannot be unpacked")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil"])
def test_an_archive_in_an_archive_is_not_trusted_either(tmp_path, name):
    inner = tar(tmp_path / "inner.tar.gz", MEMBERS | {name: b"evil"}).read_bytes()
    refused(tar(tmp_path / "a.tar.gz", {"inner.tar.gz": inner}), tmp_path, "not safe to unpack", nested="inner.tar.gz")


def test_a_setuid_file_loses_its_mode(tmp_path):
    archive = tar(tmp_path / "a.tar", MEMBERS, "w")
    with tarfile.open(archive, "a") as opened:
        member = tarfile.TarInfo("set/images/suid")
        member.mode = 0o6777
        opened.addfile(member, io.BytesIO())
    items = (Item("mine/images", "set/images", files=3), *ITEMS[1:])
    taken(archive, tmp_path, items)
    assert (tmp_path / "data/mine/images/suid").stat().st_mode & 0o6022 == 0


def test_a_link_in_a_zip(tmp_path):
    archive = zipped(tmp_path / "a.zip", MEMBERS)
    with zipfile.ZipFile(archive, "a") as opened:
        member = zipfile.ZipInfo("set/images/link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(member, "../../evil")
    refused(archive, tmp_path, "'set/images/link' is a link")


@pytest.mark.parametrize("suffix", ["tar.gz", "tar", "zip"])
def test_a_torn_archive(tmp_path, suffix):
    make = zipped if suffix == "zip" else tar
    archive = make(tmp_path / f"a.{suffix}", MEMBERS)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    refused(archive, tmp_path, "cannot be unpacked")


def test_a_torn_compressed_file(tmp_path):
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress(b"data" * 1000)[:-20])
    refused(tmp_path / "x.h5.gz", tmp_path, "cannot be unpacked", (Item("pcam/x.h5"),))


def test_a_web_page_instead_of_an_archive(tmp_path):
    for name in ("a.tar.gz", "a.zip"):
        (tmp_path / name).write_text("<html>Quota exceeded</html>")
        refused(tmp_path / name, tmp_path, "cannot be unpacked")


def test_another_archive_than_expected(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", MEMBERS)
    refused(archive, tmp_path, "'set/nothing' in it is missing", (Item("mine/x", "set/nothing", files=1),))
    refused(archive, tmp_path, "'set/images' in it has 2 files, not 3", (Item("mine/x", "set/images", files=3),))
    refused(archive, tmp_path, "'set/labels.txt' in it has 4 bytes, not 5", (Item("mine/x", "set/labels.txt", size=5),))
    refused(archive, tmp_path, "has the checksum md5:.*, not md5:00", (Item("mine/x", "set/labels.txt", checksum="md5:00"),))


KILLED = """
import os, shutil, sys
from pathlib import Path
from datasets.downloads import unpack as module
from datasets.downloads.entries import Download, Item
module.problem = lambda item, path: os._exit(9)  # as if killed when all is unpacked and nothing is in its place
items = (Item("mine/images", "set/images", files=2),)
module.unpack(Path(sys.argv[1]), Download("http://x/a.tar.gz", items), items, Path(sys.argv[2]))
"""


def test_a_killed_run_leaves_no_half_folder(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", MEMBERS)
    ended = subprocess.run([sys.executable, "-c", KILLED, archive, tmp_path / "data"], cwd=ROOT, check=False)
    assert ended.returncode == 9
    (hidden,) = (tmp_path / "data").iterdir()
    assert hidden.name.startswith(".")
    assert taken(archive, tmp_path) == WANTED  # and the next run clears up
    assert not hidden.exists()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(OSError, match="No space"):
        taken(tar(tmp_path / "a.tar.gz", MEMBERS), tmp_path)
    assert list(Path(tmp_path / "data").iterdir()) == []
