"""Files are the old one or the new one, tables only grow, and what cannot be written is told in one sentence."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import stat

import pytest

from common.errors import UserError
from common.files import (
    LOCK,
    append_rows,
    check_appendable,
    ensure_folder,
    read_csv,
    read_json,
    remove_leftovers,
    replacing,
    sha256_of_file,
    slug,
    write_json,
    write_text,
)


def full(*_, **__):
    raise OSError(28, "No space left on device")


# --- replacing -----------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_with_its_folders_made(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old\n")
    write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_between_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parents[1] == path.parent  # another folder may be another disk, to which nothing can be renamed
    assert path.read_text() == "new"


def test_the_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    earlier = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "a")
        assert os.umask(0o027) == 0o027  # it was set back
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["file/a.txt", "file/deeper/a.txt"])
def test_a_folder_that_cannot_be_made_is_a_mistake_of_the_user(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot create the output folder '.*file"):
        write_text(tmp_path / name, "a")


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"The output folder '{tmp_path}' is not writable"):
        ensure_folder(tmp_path)


@pytest.mark.parametrize("where", ["tempfile.mkdtemp", "pathlib.Path.touch", "os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_is_full_in_any_step(tmp_path, monkeypatch, where):
    monkeypatch.setattr(where, full)
    with pytest.raises(UserError, match=r"Cannot write '.*a.txt': No space left on device\."):
        write_text(tmp_path / "a.txt", "a")
    assert list(tmp_path.iterdir()) == []


# --- what a kill has left ------------------------------------------------------------------------------------------


def killed_while_writing(path, content):
    """The path of what a process leaves that gets SIGKILL when it has written ``content``."""
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.write_text(content)
            (temporary.parent / ".tmpABCDEF").write_text(content)  # as safetensors does
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = path.parent.iterdir()
    return left


def test_what_a_kill_left_goes_with_the_next_writing(tmp_path):
    left = killed_while_writing(tmp_path / "a.txt", "half")
    assert not (tmp_path / "a.txt").exists()
    assert sorted(path.name for path in left.iterdir()) == [".tmpABCDEF", "lock", "new.tmp"]
    write_text(tmp_path / "b.txt", "another file")
    assert left.exists()
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_nothing_else_is_removed(tmp_path):
    kept = [".y.txt.abcdefgh.tmp", ".x.txt.abcdefgh.tmp2", ".x.txt.ab.tmp", "x.txt.abcdefgh.tmp", "x.tmp"]
    for name in (*kept, ".x.txt.abcd_123.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".x.txt.of_user0.tmp").write_text("a file")
    remove_leftovers(tmp_path / "x.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".x.txt.of_user0.tmp"])
    remove_leftovers(tmp_path / "absent" / "x.txt")


def test_a_file_that_another_writer_is_making_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", full)
    (tmp_path / ".a.txt.abcdefgh.tmp").mkdir()
    write_text(tmp_path / "a.txt", "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.txt.abcdefgh.tmp", "a.txt"]


def test_a_folder_that_was_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real = fcntl.flock

    def flock(handle, how):
        monkeypatch.undo()
        remove_leftovers(tmp_path / "a.txt")  # another process is faster
        real(handle, how)

    monkeypatch.setattr("fcntl.flock", flock)
    write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_a_leftover_stays_locked_until_it_is_gone(tmp_path, monkeypatch):
    """Else its writer, which has not locked it yet, could take it for its own and then lose it."""
    left, real, held = tmp_path / ".a.txt.abcdefgh.tmp", shutil.rmtree, []
    left.mkdir()

    def rmtree(folder, **how):
        with (folder / LOCK).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(folder)
        real(folder, **how)

    monkeypatch.setattr("shutil.rmtree", rmtree)
    remove_leftovers(tmp_path / "a.txt")
    assert held == [left]
    assert not left.exists()


def test_the_lock_of_a_file_that_is_gone_gives_no_leave_to_remove(tmp_path, monkeypatch):
    """The writer has made it again meanwhile, and works in the folder."""
    left, real = tmp_path / ".a.txt.abcdefgh.tmp", fcntl.flock
    left.mkdir()

    def flock(handle, how):
        monkeypatch.undo()
        (left / LOCK).unlink()
        (left / LOCK).touch()
        real(handle, how)

    monkeypatch.setattr("fcntl.flock", flock)
    remove_leftovers(tmp_path / "a.txt")
    assert left.exists()


def test_a_full_disk_is_told_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"Cannot write '.*a.txt': No space left on device\."), replacing(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_json_comes_back_and_refuses_numbers_that_json_does_not_have(tmp_path):
    value = {"name": "Grüße", "values": [1, 2.5e-7, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json' is not readable JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"No such file: '.*b\.json'"):
        read_json(tmp_path / "b.json")


def test_a_folder_is_no_json(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        read_json(tmp_path)


# --- tables --------------------------------------------------------------------------------------------------------


def test_earlier_rows_stay_and_new_columns_come_at_the_right(tmp_path):
    table = tmp_path / "t" / "a.csv"
    append_rows(table, [{"a": 1, "b": "x, y"}])
    append_rows(table, [{"b": 'a "word"', "c": "two\nlines"}])
    assert table.read_text().splitlines()[0] == "a,b,c"
    assert read_csv(table) == [{"a": "1", "b": "x, y", "c": ""}, {"a": "", "b": 'a "word"', "c": "two\nlines"}]


def test_a_table_of_another_program_is_continued(tmp_path):
    table = tmp_path / "a.csv"
    table.write_bytes(b"a,b\r\n1,2")  # its line ends, and none behind the last row
    append_rows(table, [{"a": 3, "b": 4}])
    assert table.read_bytes() == b"a,b\n1,2\n3,4\n"


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text('a,"two\nlines",b\n')
    append_rows(table, [{"b": 1, "c": 2}])
    assert table.read_text() == 'a,"two\nlines",b,c\n,,1,2\n'


def add_many(table, writer):
    for number in range(25):
        append_rows(table, [{"writer": writer, "number": number}])


def test_processes_that_share_a_table_lose_no_row(tmp_path):
    table = tmp_path / "a.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(table, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = [(row["writer"], int(row["number"])) for row in read_csv(table)]
    assert sorted(rows) == [(name, number) for name in "ab" for number in range(25)]
    assert [number for name, number in rows if name == "a"] == list(range(25))


@pytest.mark.parametrize("content", ["a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n"1,2\n'])
def test_a_damaged_table_is_refused_and_left_as_it_is(tmp_path, content):
    table = tmp_path / "a.csv"
    table.write_text(content)
    for action in (lambda: read_csv(table), lambda: check_appendable(table), lambda: append_rows(table, [{"a": 1}])):
        with pytest.raises(UserError, match=r"a\.csv"):
            action()
    assert table.read_text() == content


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder; name a CSV file"):
        check_appendable(tmp_path)


# --- names and hashes ----------------------------------------------------------------------------------------------


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ViT-B-32/openai", "ViT-B-32-openai"), ("a b:c", "a-b-c"), ("../x", "x"), ("lr0.01_best", "lr0.01_best"), ("..", "unnamed")],
)
def test_slug(name, expected):
    assert slug(name) == expected


def test_json_files_end_with_a_line_end(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == json.dumps({"a": 1}, indent=2) + "\n"
