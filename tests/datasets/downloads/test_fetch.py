"""Fetching from a server that breaks off, changes its mind, or has no such file."""

import errno
import hashlib
import json
import random

import pytest

from datasets.downloads import fetch as module
from datasets.downloads.fetch import FetchError, checksum_of, fetch, remaining
from tests.datasets.downloads.server import Site, serving

BODY = random.Random(0).randbytes(300_000)  # the same in every process that collects these tests
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def site():
    with serving(Site({"/file.bin": BODY})) as site:
        yield site


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.bin"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


@pytest.mark.parametrize("checksum", [None, MD5, SHA256])
def test_a_file(site, target, checksum):
    fetch(f"{site.url}/file.bin", target, checksum)
    assert target.read_bytes() == BODY
    assert left(target) == ["file.bin"]
    assert site.asked == [("/file.bin", None)]


def test_a_cut_connection_goes_on_where_it_broke(site, target):
    site.cut_after = [100_000, 50_000]
    fetch(f"{site.url}/file.bin", target, MD5)
    assert target.read_bytes() == BODY
    assert [asked for _, asked in site.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.sent == len(BODY)  # no byte came twice


def test_the_next_run_goes_on_where_the_last_one_broke(site, target, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    site.cut_after = [100_000]
    with pytest.raises(FetchError, match="broke after 100,000 of 300,000 bytes; run again"):
        fetch(f"{site.url}/file.bin", target, MD5)
    assert left(target) == ["file.bin.part", "file.bin.part.json"]
    assert remaining(f"{site.url}/file.bin", target, len(BODY)) == 200_000
    fetch(f"{site.url}/file.bin", target, MD5)
    assert target.read_bytes() == BODY
    assert site.sent == len(BODY)
    assert left(target) == ["file.bin"]


@pytest.mark.parametrize("change", [{"ranges": False}, {"etags": False}, {"etags": False, "ranges": False}])
def test_servers_that_know_less(site, target, change):
    for name, value in change.items():
        setattr(site, name, value)
    site.cut_after = [100_000]
    fetch(f"{site.url}/file.bin", target, MD5)
    assert target.read_bytes() == BODY


def test_without_length_and_version_it_starts_anew(site, target):
    site.lengths = site.etags = False
    target.with_name("file.bin.part").write_bytes(b"of another file")
    fetch(f"{site.url}/file.bin", target, MD5)
    assert site.asked == [("/file.bin", None)]


@pytest.mark.parametrize("etags", [True, False])
def test_a_changed_file_starts_anew(site, target, monkeypatch, etags):
    monkeypatch.setattr(module, "PAUSES", ())
    site.etags = etags
    site.cut_after = [100_000]
    with pytest.raises(FetchError):
        fetch(f"{site.url}/file.bin", target)
    monkeypatch.setattr(module, "PAUSES", (0.0,))
    site.files["/file.bin"] = BODY[::-1] + b"longer"
    fetch(f"{site.url}/file.bin", target)
    assert target.read_bytes() == BODY[::-1] + b"longer"


def test_a_file_that_became_shorter_starts_anew(site, target, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    site.etags = False
    site.cut_after = [100_000]
    with pytest.raises(FetchError):
        fetch(f"{site.url}/file.bin", target)
    monkeypatch.setattr(module, "PAUSES", (0.0,))
    site.files["/file.bin"] = BODY[:1000]  # the server answers 416 to the rest
    fetch(f"{site.url}/file.bin", target)
    assert target.read_bytes() == BODY[:1000]


def test_a_part_of_another_address_is_not_used(site, target, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    site.files["/other.bin"] = BODY[::-1]
    site.cut_after = [100_000]
    with pytest.raises(FetchError):
        fetch(f"{site.url}/other.bin", target)
    fetch(f"{site.url}/file.bin", target, MD5)
    assert site.asked[-1] == ("/file.bin", None)


def test_a_wrong_checksum_leaves_nothing(site, target):
    with pytest.raises(FetchError, match=f"not the file that was published: its checksum is {MD5}, not md5:0000; it was removed"):
        fetch(f"{site.url}/file.bin", target, "md5:0000")
    assert left(target) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_tried_again(site, target, status):
    site.statuses = [status] * 9
    with pytest.raises(FetchError, match=rf"'{site.url}/file.bin' cannot be fetched: the server answers {status} "):
        fetch(f"{site.url}/file.bin", target)
    assert len(site.asked) == 1
    assert left(target) == []


def test_a_busy_server_is_asked_again(site, target):
    site.statuses = [503, 429]
    fetch(f"{site.url}/file.bin", target, MD5)
    assert len(site.asked) == 3


def test_a_server_that_stays_busy_is_given_up(site, target):
    site.statuses = [503] * 9
    with pytest.raises(FetchError, match="503 Service Unavailable; run again"):
        fetch(f"{site.url}/file.bin", target)
    assert len(site.asked) == 4


def test_pauses_grow_and_start_again_with_each_gain(site, target, monkeypatch):
    slept = []
    monkeypatch.setattr(module, "PAUSES", (1.0, 2.0, 3.0))
    monkeypatch.setattr(module.time, "sleep", slept.append)
    site.statuses, site.cut_after = [503, 503], [1000, 1000]
    fetch(f"{site.url}/file.bin", target, MD5)
    assert [pause for pause in slept if pause] == [1.0, 2.0, 1.0, 1.0]


def test_nobody_there(target):
    with pytest.raises(FetchError, match=r"cannot be fetched: .*refused"):
        fetch("http://127.0.0.1:9/file.bin", target)


def test_a_silent_server_is_given_up(site, target, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    monkeypatch.setattr(module, "PAUSES", ())
    site.pause = 0.3
    with pytest.raises(FetchError, match="timed out"):
        fetch(f"{site.url}/file.bin", target)


def test_a_full_disk_keeps_what_is_there(site, target, monkeypatch):
    written = []

    def full(response, part, start, total, progress):
        part.write_bytes(response.read(1000))
        written.append(part)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_copy", full)
        with pytest.raises(FetchError, match=r"The disk is full: .*keeps the 1,000 bytes"):
            fetch(f"{site.url}/file.bin", target)
    assert len(written) == 1  # a full disk is not tried again
    fetch(f"{site.url}/file.bin", target, MD5)
    assert site.asked[-1] == ("/file.bin", "bytes=1000-")


def test_a_torn_note_starts_anew(site, target):
    target.with_name("file.bin.part").write_bytes(BODY[:500])
    target.with_name("file.bin.part.json").write_text('{"url": ')
    fetch(f"{site.url}/file.bin", target, MD5)
    assert site.asked == [("/file.bin", None)]


def test_a_part_that_is_whole_already_needs_no_request(site, target):
    url = f"{site.url}/file.bin"
    target.with_name("file.bin.part").write_bytes(BODY)
    target.with_name("file.bin.part.json").write_text(json.dumps({"url": url, "validator": None, "total": len(BODY)}))
    fetch(url, target, MD5)
    assert site.asked == []


def test_a_file_of_this_machine(tmp_path, target):
    (tmp_path / "mirror").write_bytes(BODY)
    fetch((tmp_path / "mirror").as_uri(), target, MD5)
    assert target.read_bytes() == BODY


def test_checksum_of(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    assert checksum_of(tmp_path / "a", "md5") == MD5
    assert checksum_of(tmp_path / "a", "sha256") == SHA256
