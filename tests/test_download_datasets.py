"""download_datasets.py as a user runs it, against a server of this machine."""

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple

import pytest

from tests.datasets.downloads.server import Site, serving
from tests.helpers import ROOT, Ended, files_below, run_here


def tar_gz(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


LABELS = gzip.compress(b"labels")
PICTURES = tar_gz({"p/images/1.jpg": os.urandom(400_000), "p/images/2.jpg": b"two", "p/readme": b"r"})


@pytest.fixture
def site():
    with serving(Site({"/pictures.tar.gz": PICTURES, "/labels.gz": LABELS})) as site:
        yield site


@pytest.fixture
def entries(site):
    """Three data sets: an archive, a plain file, and one that is partly got by hand."""
    pictures = {
        "url": f"{site.url}/pictures.tar.gz", "size": len(PICTURES), "checksum": md5(PICTURES),
        "items": [{"path": "pictures/images", "inner": "p/images", "files": 2}],
    }  # fmt: skip
    labels = {"url": f"{site.url}/labels.gz", "size": len(LABELS), "items": [{"path": "labels/labels.gz", "checksum": md5(LABELS)}]}
    split = {"url": f"{site.url}/page", "name": "split.json", "by_hand": True, "items": [{"path": "mixed/split.json"}]}
    mixed = {**labels, "items": [{"path": "mixed/labels.gz"}]}
    common = {"home": "http://home", "licence": "free"}
    return [
        {"name": "Pictures", "downloads": [pictures], **common},
        {"name": "Labels", "downloads": [labels], **common},
        {"name": "Mixed", "downloads": [mixed, split], **common},
    ]


@pytest.fixture
def run(tmp_path, entries):
    """A function: run the script in this process with the manifest of the entries."""

    def call(*arguments, how=run_here) -> Ended:
        (tmp_path / "manifest.json").write_text(json.dumps(entries))
        return how("download_datasets", *arguments, "--manifest", tmp_path / "manifest.json", "--data-dir", tmp_path / "data")

    return call


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    from datasets.downloads import fetch

    monkeypatch.setattr(fetch, "PAUSES", (0.0,))


def start(name, *arguments):
    return subprocess.Popen([sys.executable, ROOT / f"{name}.py", *map(str, arguments)], stdout=-1, stderr=-1, text=True)


def in_a_process(name, *arguments):
    process = start(name, *arguments)
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


def test_get_as_a_user_does(run, tmp_path):
    ended = run("--datasets", "Pictures", "Labels", how=in_a_process).succeeded()
    assert ended.stdout.splitlines() == ["Pictures: pictures.tar.gz", "Pictures: done", "Labels: labels.gz", "Labels: done"]
    assert ended.stderr == ""  # no bars where there is no terminal
    assert set(files_below(tmp_path / "data")) >= {"pictures/images/1.jpg", "pictures/images/2.jpg", "labels/labels.gz"}
    assert not (tmp_path / "data/archives").exists()
    assert not (tmp_path / "data/pictures/readme").exists()


def test_what_is_there_is_left_alone(run, site):
    run("--datasets", "Pictures").succeeded()
    asked = len(site.asked)
    assert "Pictures: is there already" in run("--datasets", "Pictures").succeeded().stdout
    assert len(site.asked) == asked


def test_keep_archives_and_use_them(run, site, tmp_path):
    run("--datasets", "Pictures", "--keep-archives").succeeded()
    archive = tmp_path / "data/archives/Pictures/pictures.tar.gz"
    assert archive.read_bytes() == PICTURES
    (tmp_path / "data/pictures/images").rename(tmp_path / "aside")
    run("--datasets", "Pictures").succeeded()
    assert len(site.asked) == 1
    assert not archive.exists()


def test_an_archive_that_is_there_is_checked(run, tmp_path):
    archive = tmp_path / "data/archives/Pictures/pictures.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"another")
    ended = run("--datasets", "Pictures")
    assert ended.status == 1
    assert f"'{archive}' is not the file that was published" in ended.stderr
    assert archive.exists()  # the user's


def test_one_failure_does_not_stop_the_others(run, site, tmp_path):
    del site.files["/pictures.tar.gz"]
    ended = run("--datasets", "Pictures", "Labels")
    assert ended.status == 1
    assert (tmp_path / "data/labels/labels.gz").exists()
    assert "1 of 2 data sets are complete" in ended.stderr
    assert f"Pictures failed: '{site.url}/pictures.tar.gz' cannot be fetched: the server answers 404 Not Found." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_checksum_and_a_torn_archive(run, entries, site, tmp_path):
    site.files["/pictures.tar.gz"] = PICTURES[:-1000]
    assert "not the file that was published" in run("--datasets", "Pictures").stderr
    entries[0]["downloads"][0]["checksum"] = None
    assert "cannot be unpacked" in run("--datasets", "Pictures").stderr
    assert not (tmp_path / "data/pictures").exists()
    site.files["/pictures.tar.gz"] = PICTURES
    run("--datasets", "Pictures").succeeded()  # the torn one was not kept


def test_a_plain_file_is_checked_too(run, site, tmp_path):
    site.files["/labels.gz"] = b"other"
    assert "it has the checksum" in run("--datasets", "Labels").stderr
    assert not (tmp_path / "data/labels/labels.gz").exists()


def test_a_cut_download_goes_on_in_the_next_run(run, site, monkeypatch):
    from datasets.downloads import fetch

    monkeypatch.setattr(fetch, "PAUSES", ())
    site.cut_after = [100_000]
    assert "run again to go on" in run("--datasets", "Pictures").stderr
    run("--datasets", "Pictures").succeeded()
    assert [asked for _, asked in site.asked] == [None, "bytes=100000-"]


def test_a_killed_download_goes_on(run, site, tmp_path):
    site.pause = 0.05
    process = run("--datasets", "Pictures", how=start)
    part = tmp_path / "data/archives/Pictures/pictures.tar.gz.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = part.stat().st_size
    assert 0 < there < len(PICTURES)
    site.pause = 0.0
    run("--datasets", "Pictures").succeeded()
    assert site.asked[-1] == ("/pictures.tar.gz", f"bytes={there}-")


def test_a_disk_without_room(run, site, monkeypatch):
    from datasets.downloads import get

    monkeypatch.setattr(get.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(len(PICTURES)))
    message = run("--datasets", "Pictures", "Labels").refused("0.4 MB free, but 0.8 MB are needed")
    assert "name fewer data sets" in message
    assert site.asked == []
    run("--datasets", "Labels").succeeded()


def test_a_part_needs_less_room(run, site, tmp_path, monkeypatch):
    from datasets.downloads import fetch, get

    monkeypatch.setattr(fetch, "PAUSES", ())
    site.cut_after = [300_000]
    run("--datasets", "Pictures")
    free = 2 * len(PICTURES) - 300_000
    monkeypatch.setattr(get.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(free))
    run("--datasets", "Pictures").succeeded()


def test_by_hand(run, site, tmp_path):
    ended = run("--datasets", "Mixed")
    assert ended.status == 1
    assert "Mixed has files that you have to get yourself: see python download_datasets.py --list Mixed" in ended.stderr
    assert (tmp_path / "data/mixed/labels.gz").exists()  # what can be fetched was
    listed = run("--list", "Mixed").succeeded().stdout
    assert f"get split.json from {site.url}/page\n      and save it as {tmp_path}/data/mixed/split.json" in listed
    assert f"missing  {tmp_path}/data/mixed/split.json" in listed
    assert f"there    {tmp_path}/data/mixed/labels.gz" in listed
    (tmp_path / "data/mixed/split.json").write_text("{}")
    run("--datasets", "Mixed").succeeded()


def test_an_archive_got_by_hand_is_unpacked(run, entries, tmp_path, site):
    entries[0]["downloads"][0]["by_hand"] = True
    assert run("--datasets", "Pictures").status == 1
    archive = tmp_path / "data/archives/Pictures/pictures.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(PICTURES)
    run("--datasets", "Pictures").succeeded()
    assert (tmp_path / "data/pictures/images/2.jpg").read_bytes() == b"two"
    assert site.asked == []


def test_list(run, tmp_path):
    def line(name):
        listed = run("--list").succeeded().stdout.splitlines()
        return next(line for line in listed if line.startswith(f"{name} ")).split(maxsplit=4)

    assert line("Pictures")[:2] == ["Pictures", "missing"]
    assert line("Pictures")[4].split("  ")[0] == "fetched"
    run("--datasets", "Pictures", "Mixed")
    assert line("Pictures")[1] == "complete"
    assert line("Mixed")[1] == "partial"
    assert "partly by hand: see --list Mixed" in " ".join(line("Mixed"))
    assert line("DTD")[1] == "missing"  # the built-in table is there too


def test_list_makes_nothing(run, tmp_path):
    run("--list")
    run("--verify")
    assert not (tmp_path / "data").exists()


def test_verify(run, tmp_path):
    run("--datasets", "Pictures", "Labels").succeeded()
    assert sorted(run("--verify").succeeded().stdout.splitlines()) == ["Labels: all is there", "Pictures: all is there"]
    (tmp_path / "data/labels/labels.gz").write_bytes(LABELS[::-1])
    (tmp_path / "data/pictures/images/2.jpg").unlink()
    ended = run("--verify")
    assert ended.status == 1
    assert "images' has 1 files, not 2" in ended.stdout
    assert f"labels.gz' has the checksum {md5(LABELS[::-1])}, not {md5(LABELS)}" in ended.stdout
    assert run("--verify", "--datasets", "Mixed").stdout == "Mixed: is missing\n"
    assert run("--verify", "Mixed").status == 1


def test_all_takes_what_can_be_fetched(run, entries, monkeypatch):
    from datasets.downloads import manifest

    monkeypatch.setattr(manifest, "ENTRIES", {})
    ended = run("--all").succeeded()  # what is left to be got by hand was not asked for by name
    assert "Pictures: done" in ended.stdout
    assert "Mixed has files that you have to get yourself" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name data sets with --datasets"),
        (["--datasets", "Picture"], "did you mean 'Pictures'?"),
        (["--datasets", "MNIST@coop"], "MNIST has no 'coop' splits"),
        (["--all", "--datasets", "DTD"], "--all means every data set"),
        (["--list", "--verify"], "give one of them"),
        (["--dataset", "DTD"], "did you mean '--datasets'?"),
    ],
)
def test_wrong_usage(run, arguments, words):
    run(*arguments).refused(words)


def test_names_with_a_split_convention(run, tmp_path):
    (tmp_path / "data/dtd/images").mkdir(parents=True)
    (tmp_path / "data/dtd/labels").mkdir()
    run("--datasets", "DTD").succeeded()
    ended = run("--datasets", "DTD@coop")
    assert ended.status == 1
    assert "--list DTD" in ended.stderr
    run("--datasets", "DTD", "FMoW-id", "FMoW-ood", "--list").succeeded()


def test_a_set_of_the_hub(run, tmp_path, monkeypatch):
    import huggingface_hub

    from datasets import hub_repository

    def snapshot(repository, *, local_dir, revision, allow_patterns, repo_type):
        assert (repository, revision, allow_patterns, repo_type) == ("tanganke/dtd", "abc", ["data/train.parquet"], "dataset")
        (local_dir / "data").mkdir(parents=True)
        (local_dir / "data/train.parquet").write_bytes(b"PAR1")

    monkeypatch.setattr(hub_repository, "_newest", lambda name: {"revision": "abc", "files": ["data/train.parquet"]})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    run("--datasets", "DTD@hub").succeeded()
    assert hub_repository.open_repository("tanganke/dtd", tmp_path / "data").folder == tmp_path / "data/hub/tanganke/dtd"
    assert "is there already" in run("--datasets", "DTD@hub").succeeded().stdout
    assert run("--verify", "DTD@hub").succeeded().stdout == "DTD: all is there\n"


def test_a_hub_that_does_not_answer(run, tmp_path, monkeypatch):
    import huggingface_hub

    from datasets import hub_repository

    def snapshot(repository, *, local_dir, **options):
        local_dir.mkdir(parents=True)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub_repository, "_newest", lambda name: {"revision": "abc", "files": []})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    ended = run("--datasets", "NanoNQ")
    assert ended.status == 1
    assert "Cannot fetch 'zeta-alpha-ai/NanoNQ' from the Hugging Face hub (no route to host)" in ended.stderr
    assert not (tmp_path / "data/hub/zeta-alpha-ai/NanoNQ").exists()  # half a copy would count as a whole one
