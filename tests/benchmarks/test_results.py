"""The table, the files of a run, the README's markers, and the command as a user runs it; on rows that were never measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import runs
from benchmarks.machine import machine, name_of, sentence
from benchmarks.results import BEGIN, END, Results, renew
from benchmarks.rows import Row, Timing
from benchmarks.runs import Bench, benches
from benchmarks.show import rows_of
from benchmarks.table import markdown, print_table
from common.errors import UserError
from tests.helpers import QUIET, ROOT

SLOW, FAST = Timing(6.0, 5.5, 7.25, 6.0, 3, 500, 1300), Timing(0.25, 0.2, 0.3, 0.2, 3, 510, 0)
GOOD = Row("merge | eight", "whole models", SLOW, FAST, "weights equal")
BAD = Row("merge nine", "", failed="its process died")
MACHINE = {
    **{"processor": "Abacus", "cores": 2, "memory_gib": 16, "system": "Linux, Distribution 1", "gpu": "", "commit": "abc"},
    **{"versions": {"python": "3.10", "torch": "2.0", "numpy": "2.0"}, "date": "2020-01-02T03:04:05+00:00"},
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(MACHINE, "default", tmp_path, "abacus")


def test_the_table_has_times_ratio_memory_and_agreement() -> None:
    lines = markdown([GOOD, BAD]).splitlines()
    assert lines[2] == "| merge / eight | whole models | 6 s (5.5–7.25) | 0.25 s (0.2–0.3) | 24 | 500 + 1,300 | 510 + 0 | weights equal |"
    assert lines[3] == "| merge nine |  |  |  |  |  |  | FAILED: its process died |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_terminal_shows_the_same_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_table([GOOD, BAD]) == [GOOD, BAD]
    out = capsys.readouterr().out
    assert "merge | eight; plain: whole models\n" in out
    assert "500 + 1,300" in out
    assert "FAILED: its process died" in out


def test_rows_are_kept_while_the_run_goes_on(results: Results, tmp_path: Path) -> None:
    (tmp_path / "abacus.json").write_text("the last whole run")
    results.add(Bench("merging", "--models 8"), GOOD)
    partial = json.loads((tmp_path / "abacus.partial.json").read_text())
    assert [row["command"] for row in partial["rows"]] == ["python -m benchmarks.merging --models 8"]
    assert (tmp_path / "abacus.json").read_text() == "the last whole run"


def test_a_finished_run_has_everything_in_json_and_a_page(results: Results, tmp_path: Path) -> None:
    results.add(Bench("merging", ""), GOOD)
    results.add(Bench("merging", ""), BAD)
    results.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abacus.json", "abacus.md"]
    written = json.loads((tmp_path / "abacus.json").read_text())
    assert (written["machine"], written["size"]) == (MACHINE, "default")
    assert [row["ratio"] for row in written["rows"]] == [24.0, None]
    assert written["rows"][0]["plain"]["added_mib"] == 1300
    page = (tmp_path / "abacus.md").read_text()
    assert "Abacus, 2 cores; 16 GiB; no GPU; Linux, Distribution 1; Python 3.10" in page
    assert page.count("python -m benchmarks.merging\n") == 1
    assert results.failed


def test_the_table_takes_the_place_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{BEGIN}old\ntable\n{END}\nnotes\n")
    renew(page, "new\n")
    renew(page, "newer\n")
    assert page.read_text() == f"# Title\n\n{BEGIN}newer\n{END}\nnotes\n"


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}no end", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"], ids=range(4))
def test_a_page_without_a_place_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(UserError, match="has no place for the table"):
        renew(page, "new\n")
    assert page.read_text() == text


def test_the_readme_has_the_markers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("## Speed") < text.index(BEGIN) < text.index(END) < text.index("## Limits")


def test_the_machine_is_told_without_names_or_paths() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert found["memory_gib"] >= 1
    told = json.dumps(found)
    assert os.uname().nodename not in told
    assert str(Path.home()) not in told
    assert "None" not in sentence(found)


def test_results_are_filed_under_the_kind_of_machine() -> None:
    assert name_of(MACHINE) == "cpu-2-cores"
    assert name_of({**MACHINE, "gpu": "NVIDIA H200"}) == "nvidia-h200"


@pytest.mark.parametrize("size", runs.SIZES)
def test_every_command_of_every_size_is_one_that_its_module_takes(size: str) -> None:
    for bench in benches(size):
        module: Any = import_module(f"benchmarks.{bench.module}")
        assert module.parse_arguments(bench.words.split()).repeats >= 1
        assert callable(module.works)


def test_some_modules_can_be_chosen() -> None:
    assert [bench.command for bench in benches("default", ["text"])] == ["python -m benchmarks.text"]


class Faked:
    """The command with rows that are made up, below a folder of its own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        (root / "README.md").write_text(f"{BEGIN}old\n{END}")
        monkeypatch.setattr(command, "HERE", root / "benchmarks")
        monkeypatch.setattr(command, "machine", lambda: MACHINE)

    def run(self, rows: Any, *words: str) -> int:
        self.monkeypatch.setattr(command, "rows", rows)
        self.monkeypatch.setattr("sys.argv", ["benchmarks", *words])
        return command.main()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.root / "benchmarks").glob("results/*"))

    @property
    def readme(self) -> str:
        return (self.root / "README.md").read_text()


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faked:
    return Faked(tmp_path, monkeypatch)


def test_a_whole_run_writes_results_and_the_readme(faked: Faked) -> None:
    assert faked.run(lambda bench: [GOOD]) == 0
    assert faked.files == ["cpu-2-cores.json", "cpu-2-cores.md"]
    assert faked.readme.count("merge / eight") == len(benches("default"))


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--no-readme"], ["cpu-2-cores.json", "cpu-2-cores.md"]),
        (["--only", "text", "data"], ["cpu-2-cores-text-data.json", "cpu-2-cores-text-data.md"]),
        (["--full", "--name", "mine"], ["mine.json", "mine.md"]),
        (["--quick"], []),
    ],
    ids=["no readme", "only", "full", "quick"],
)
def test_other_runs_leave_the_readme_alone(words: list[str], files: list[str], faked: Faked, capsys: pytest.CaptureFixture[str]) -> None:
    assert faked.run(lambda bench: [GOOD], *words) == 0
    assert (faked.files, faked.readme) == (files, f"{BEGIN}old\n{END}")
    assert ("no GPU here" in capsys.readouterr().out) == ("--full" in words)


def test_a_benchmark_that_breaks_makes_a_row_and_status_1_and_the_others_go_on(faked: Faked, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(bench: Bench) -> Iterator[Row]:
        yield GOOD
        if bench.module == "embed":
            raise OSError("disk full")

    assert faked.run(rows) == 1
    written = json.loads((faked.root / "benchmarks/results/cpu-2-cores.json").read_text())["rows"]
    assert [row["failed"] for row in written if row["failed"]] == ["OSError: disk full"]
    assert len(written) == len(benches("default")) + 1
    assert faked.readme == f"{BEGIN}old\n{END}"


def test_an_interrupt_keeps_the_finished_rows(faked: Faked, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(bench: Bench) -> Iterator[Row]:
        yield GOOD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        faked.run(rows)
    assert "broken off after 1 rows, kept in" in capsys.readouterr().out
    assert faked.files == ["cpu-2-cores.partial.json"]


def test_a_readme_without_a_place_is_refused_before_anything_is_measured(faked: Faked) -> None:
    (faked.root / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="has no place"):
        faked.run(lambda bench: pytest.fail("measured"))


def test_threads_are_those_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert list(rows_of(SimpleNamespace(threads=3), lambda args: iter(()))) == []  # type: ignore[arg-type]
    assert os.environ["OMP_NUM_THREADS"] == "3"


def as_a_user(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **QUIET}
    done = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(done, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_smallest_run_as_a_user(tmp_path: Path) -> None:
    ended = as_a_user("--quick", "--only", "metrics", "--folder", str(tmp_path), "--name", "small")
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "small.json").read_text())["rows"]
    assert [row["work"].split(",")[0] for row in rows] == ["`iimm`", "all 9 measures", "IIMM of 1"]
    assert all(row["ours"]["seconds"] > 0 and row["plain"]["seconds"] > 0 and not row["failed"] for row in rows)
    assert "scores relatively" in (tmp_path / "small.md").read_text()


def test_an_unknown_part_is_refused() -> None:
    ended = as_a_user("--only", "metric")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.argv = ['b', '--help']\ntry:\n import benchmarks.__main__ as m; m.parse_arguments()\nexcept SystemExit: pass\n"
    done = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
