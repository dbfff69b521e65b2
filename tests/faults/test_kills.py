"""Every command, killed, stopped, and where nothing can be written: nothing is half, and the same command ends as if nothing had been."""

from __future__ import annotations

import io
import random
import shutil
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from merging import resuming
from tests.datasets.downloads.server import Site, serving
from tests.faults.commands import COMMANDS, Command, write_inputs, write_manifest
from tests.faults.killing import Fault, Outcome, run_with
from tests.faults.mounts import can_mount
from tests.faults.results import Results, left_over, written
from tests.faults.scale import SEED, count, times
from tests.helpers import Ended, run_here

pytestmark = pytest.mark.usefixtures("every_step", "no_figures")
KILLS, TERMINATIONS, FULL_DISKS = times(1, 16), times(1, 4), times(1, 4)  # of each command


@dataclass
class Known:
    """What a command does when it is left alone: its results, how often it touches a file, its seconds."""

    results: Results
    touches: int
    seconds: float
    largest: int


@dataclass
class World:
    """The folder of inputs, and what is known of the commands that were run."""

    inputs: Path
    known: dict[str, Known] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    inputs = write_inputs(tmp_path_factory.mktemp("faults") / "inputs")
    with serving(Site({"/pictures.tar.gz": archive(), "/labels.txt": b"labels"})) as site:
        write_manifest(inputs, site.url, site.files["/pictures.tar.gz"])
        yield World(inputs)


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name in ("p/1.jpg", "p/2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 20_000
            opened.addfile(member, io.BytesIO(random.Random(name).randbytes(20_000)))
    return buffer.getvalue()


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging too keeps the state of learning after every step, as others do with --save-minutes 0."""
    monkeypatch.setattr(resuming, "SECONDS", 0)
    monkeypatch.setattr(resuming, "SAVE_COST", 0)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all else."""
    monkeypatch.setattr("fewshot.summary.draw_accuracy", lambda *_: [])
    monkeypatch.setattr("fewshot.summary.draw_overlap", lambda *_: None)


@pytest.fixture(scope="module", params=COMMANDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def whole(world: World, name: str, out: Path) -> Known:
    """What the command does undisturbed; run in this process first, so that what it imports is there in every fork of it."""
    if name not in world.known:
        command = COMMANDS[name]
        run_here(command.script, *command.words(world.inputs, out)).succeeded()
        results = written(out)
        assert left_over(out) == []
        largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        outcome = run(world, command, out)
        assert ended(outcome).status == 0, ended(outcome).stderr
        assert written(out) == results, "two undisturbed runs differ"
        shutil.rmtree(out)
        world.known[name] = Known(results, outcome.touches, outcome.seconds, largest)
    return world.known[name]


def run(world: World, command: Command, out: Path, fault: Fault = Fault(), *more: object) -> Outcome:  # noqa: B008
    return run_with(fault, out, command.script, *command.words(world.inputs, out), *more)


def ended(outcome: Outcome) -> Ended:
    assert outcome.ended is not None
    return outcome.ended


def goes_on(world: World, name: str, out: Path, fault: Fault) -> None:
    """The same command ends with the results of a run that was not disturbed, and leaves nothing else."""
    known, command = world.known[name], COMMANDS[name]
    check_whole(known, written(out), fault)  # which raises when a file cannot be read to its end
    last = ended(run(world, command, out, Fault(), *command.again))
    if last.status == 2 and "--overwrite" in last.stderr:
        last = ended(run(world, command, out, Fault(), "--overwrite"))
    assert last.status == 0 or "exported' exists" in last.stderr, (fault, last.stderr)
    assert written(out) == known.results, fault
    left = left_over(out)
    assert len(left) <= 1 and all(".json." in path for path in left), (fault, left)  # a detail of a row, whose name has the time in it


def check_whole(known: Known, found: Results, fault: Fault) -> None:
    """Tensors under their final name are those of an undisturbed run; what grows, such as a table, may be on its way."""
    for path, contents in found.items():
        if path.endswith(".safetensors") and "_best" not in path and path in known.results:
            assert contents == known.results[path], (fault, path)


def drawn(known: Known, name: str, number: int, sent: signal.Signals) -> Fault:
    """A moment: just before a touch of a file, and every other time any."""
    moments = random.Random(f"{SEED}{name} {number} {sent.name}")
    if number % 2:
        return Fault(seconds=moments.uniform(0, known.seconds), sent=sent)
    return Fault(moments.randint(1, known.touches), sent=sent)


def test_what_is_killed_goes_on_to_the_same_results(world: World, name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    known = whole(world, name, out)
    for number in range(KILLS):
        fault = drawn(known, name, number, signal.SIGKILL)
        count("kills", run(world, COMMANDS[name], out, fault).ended is None)
        goes_on(world, name, out, fault)
        shutil.rmtree(out)


def test_what_gets_sigterm_ends_at_once_and_goes_on(world: World, name: str, tmp_path: Path) -> None:
    """With its state saved and status 75 where there is one; else with 143, and what was in the making is tidied away."""
    out, command = tmp_path / "out", COMMANDS[name]
    known = whole(world, name, out)
    for number in range(TERMINATIONS):
        fault = drawn(known, name, number, signal.SIGTERM)
        outcome = run(world, command, out, fault)
        if outcome.ended is not None:
            assert outcome.ended.status in ((0, 75, 143) if command.saves else (0, 143)), outcome.ended
            assert outcome.ended.stderr.count("\n") == (outcome.ended.status == 75), outcome.ended
            assert len(left_over(out)) <= 1, fault  # one, where the signal came while it was tidied away
        count("terminations", outcome.ended is None or outcome.ended.status > 0)
        goes_on(world, name, out, fault)
        shutil.rmtree(out)


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing_half(world: World, name: str, tmp_path: Path) -> None:
    """No file may grow beyond some size, and where root may mount one, a disk that is too small."""
    out = tmp_path / "out"
    known = whole(world, name, out)
    sizes = random.Random(SEED + name)
    for number in range(FULL_DISKS):
        fault = Fault(largest=sizes.randrange(known.largest) if number else 0)
        refused(run(world, COMMANDS[name], out, fault), fault)
        assert left_over(out) == [], fault
        goes_on(world, name, out, fault)
        shutil.rmtree(out)
        if can_mount(tmp_path / "mounted"):
            fault = Fault(disk=4096 * sizes.randint(1, max(1, known.largest // 4096)))
            outcome = run(world, COMMANDS[name], out, fault)
            assert outcome.ended is not None and outcome.ended.status in (0, 1, 2), fault
            check_whole(known, written(left := tmp_path / "out.left"), fault)
            assert left_over(left) == [], fault
            if outcome.ended.status:
                refused(outcome, fault)
            count("full disks")
            shutil.rmtree(left)
        count("full disks")


def refused(outcome: Outcome, fault: Fault) -> None:
    """One sentence and status 2; of several data sets to be got, each has its own, and the status is 1."""
    told = ended(outcome)
    assert "Traceback" not in told.stderr
    assert (told.status, told.stderr.count("\n")) == (2, 1) or (told.status == 1 and " failed: " in told.stderr), (fault, told)


def test_a_place_that_cannot_be_written_to_is_told_in_a_sentence(world: World, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "out", Path("/proc/nothing/out")):
        refused(run(world, COMMANDS[name], out), Fault())
    if can_mount(tmp_path / "mounted"):
        refused(run(world, COMMANDS[name], tmp_path / "locked", Fault(read_only=True)), Fault(read_only=True))
    assert (tmp_path / "file").read_text() == "mine"
    count("places that cannot be written to", 2)
