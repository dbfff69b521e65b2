"""Where time is counted: once, in the stage it was spent in, and nowhere without --profile."""

import re
import threading

import pytest

from common import stages
from common.stage_table import table, with_the_rest
from common.stages import Row, stage, staged


@pytest.fixture(autouse=True)
def _off_again():
    yield
    stages.end()


@pytest.fixture
def clock(monkeypatch):
    """A clock that only tests move, and a profile that began at 0."""

    class Clock:
        now = 0.0

        def spend(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    monkeypatch.setattr(stages, "_age", lambda: 0.0)
    stages.begin()
    return clock


def seconds():
    return {place: row.seconds for place, row in stages.end().rows.items()}


def test_without_profile_nothing_is_made():
    items = [1, 2]
    assert stages.timed("waiting", items) is items
    assert stage("one") is stage("other")
    stages.count("images", 3)
    stages.beside("decode", 1.0)
    assert stages.end() is None


def test_what_was_not_wanted_is_not_begun():
    stages.begin(False)
    assert stages.end() is None


def test_all_before_the_first_stage_is_the_start(clock):
    clock.spend(2)
    with stage("start"):  # is going on already
        clock.spend(1)
    with stage("work"):
        clock.spend(4)
    with stage("start"):
        clock.spend(8)
    assert seconds() == {("start",): 11, ("work",): 4}


def test_a_run_without_stages_was_all_start(clock):
    clock.spend(2)
    assert seconds() == {("start",): 2}


def test_an_inner_stage_is_part_of_the_outer_one_and_keeps_its_place(clock):
    with stage("image tower"):
        clock.spend(1)
    with stage("validation"):
        clock.spend(2)
        with stage("image tower"):
            clock.spend(4)
    assert seconds() == {("start",): 0, ("image tower",): 1, ("validation",): 6, ("validation", "image tower"): 4}


def test_a_stage_within_one_of_its_name_is_not_counted_again(clock):
    @staged("write")
    def write(depth):
        clock.spend(1)
        if depth:
            with stage("hash"):
                write(depth - 1)

    write(2)
    assert seconds() == {("start",): 0, ("write",): 3, ("write", "hash"): 2}


def test_a_stage_ends_with_the_error_that_ends_it(clock):
    with pytest.raises(ValueError, match="wrong"), stage("outer"), stage("inner"):
        clock.spend(1)
        raise ValueError("wrong")
    with stage("next"):
        clock.spend(2)
    assert seconds() == {("start",): 0, ("outer",): 1, ("outer", "inner"): 1, ("next",): 2}


def test_waiting_for_items_is_told_from_what_is_done_with_them(clock):
    def slow():
        for number in range(3):
            clock.spend(1)
            yield number

    got = []
    for number in stages.timed("waiting", slow()):
        clock.spend(10)
        got.append(number)
    assert got == [0, 1, 2]
    assert seconds()["waiting",] == 3


def test_an_error_of_the_items_goes_on_to_who_waits(clock):
    def broken():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(stages.timed("waiting", broken()))


def test_another_thread_is_counted_beside_the_stages(clock):
    def work():
        with stage("fingerprint"):
            clock.spend(3)

    with stage("image tower"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    profile = stages.end()
    assert profile.beside == {"fingerprint": Row(3, 1)}
    assert list(profile.rows) == [("start",), ("image tower",)]


def test_a_staged_function_stays_itself():
    @staged("work")
    def double(x: int) -> int:
        """Twice as much."""
        return 2 * x

    assert (double(4), double.__name__, double.__doc__) == (8, "double", "Twice as much.")


def test_each_level_ends_with_what_is_left_of_it():
    rows = {("a",): Row(4, 2), ("b",): Row(3, 1), ("a", "x"): Row(1, 1)}
    assert with_the_rest(rows, 10) == {
        ("a",): Row(4, 2),
        ("a", "x"): Row(1, 1),
        ("a", "other"): Row(3),
        ("b",): Row(3, 1),
        ("other",): Row(3),
    }


def test_the_shares_of_the_outermost_stages_add_up(clock):
    for name, took in (("model", 3), ("image tower", 5), ("model", 1)):
        with stage(name):
            clock.spend(took)
            with stage("hash"):
                clock.spend(0.5)
    clock.spend(1.5)
    stages.count("images read", 36)
    stages.beside("decode", 7.0)
    text = table(stages.end())
    shares = [float(share) for share in re.findall(r"^\w[\w ]*?  +[\d.]+ +([\d.]+) %", text, re.MULTILINE)]
    assert shares[:-1] == pytest.approx([0, 41.7, 45.8, 12.5])  # start, model, image tower, other
    assert shares[-1] == 100
    assert "36 images read, 3.0 a second of the whole run" in text
    assert "decode 7.00 s" in text
    assert "peak memory: process" in text
    assert "waited" not in text


def test_of_several_processes_the_slowest_is_shown(clock):
    with stage("work"):
        clock.spend(1)
    stages.compare(lambda mine: [*mine, {("start",): 0.25, ("work",): 7.0}])
    text = table(stages.end())
    assert re.search(r"most of a process", text)
    assert re.search(r"^work +1\.00 .* 7\.00$", text, re.MULTILINE)


def test_of_one_process_no_slowest_is_shown(clock):
    clock.spend(1)
    stages.compare(lambda mine: mine)
    assert "most of a process" not in table(stages.end())


def test_the_age_of_this_process_is_known_where_the_system_tells_it():
    assert 0 <= stages._age() < 86400 * 30
