"""The benchmark's two ways of merging, on encoders of one or two small layers: the released way is a second oracle for many methods."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks import merging, merging_files
from benchmarks.merging_files import Problem
from benchmarks.merging_plain import RELEASED
from benchmarks.work import Disagreement

SMALL = {"WIDTH": 32, "HIDDEN": 64, "PATCH": 8, "TOKENS": 5, "EMBED": 16, "HEAD_WIDTH": 16, "BATCH": 4}


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """Three encoders of two layers, ten images each, in batches of four: the last is short."""
    for name, size in SMALL.items():
        monkeypatch.setattr(merging_files, name, size)
    problem = Problem(merging_files.draw(tmp_path, 3, 2), tmp_path / "merged.safetensors", layers=2, images=10)
    merging_files.write_seen(problem)
    return problem


@pytest.mark.parametrize("method", [name for name in RELEASED if not name.startswith("dare")])
def test_both_ways_give_the_same(method: str, problem: Problem) -> None:
    other = dataclasses.replace(problem, out=problem.out.with_name("released.safetensors"))
    plain, ours = merging.released(other, method)(), merging.streamed(problem, method)()
    assert merging.agreement(method, plain, ours).startswith("weights ")
    assert merging.difference(plain, ours) < min(1e-4, merging.TOLERANCES.get(method, 1e-6))  # small inverses are better
    assert merging.difference(ours, problem.files[0]) > 1e-4


def test_a_way_can_be_run_again(problem: Problem) -> None:
    for way in (merging.released(problem, "ties"), merging.streamed(problem, "ties"), merging.copied(problem)):
        way()
        way()


def test_dare_of_both_ways_keeps_about_half(problem: Problem) -> None:
    """They draw other entries, so only their number can be compared."""
    from safetensors.torch import load_file

    base, kept = load_file(problem.files[0]), []
    for way in (merging.released, merging.streamed):
        way(problem, "dare_task_arithmetic")()
        merged = load_file(problem.out)
        problem.out.unlink()
        moved = [(merged[name] != tensor).double().sum() for name, tensor in base.items()]
        kept.append(float(sum(moved) / sum(tensor.numel() for tensor in base.values())))
    assert kept == pytest.approx([1 - 0.5**3] * 2, abs=0.02)
    assert merging.agreement("dare_task_arithmetic", problem.files[0], problem.files[1]) == "other draws"


def test_the_command_has_a_row_for_every_method_while_the_encoders_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SMALL.items():
        monkeypatch.setattr(merging_files, name, size)
    words = "--models 2 --layers 1 --images 3 --methods copy magmax regmean emr --folder"
    works = merging.works(merging.parse_arguments([*words.split(), str(tmp_path)]))
    compared = []
    for work in works:
        plain, ours = None if work.plain is None else work.plain()(), work.ours()()
        compared.append(work.agree(plain, ours).split(" ")[0])
    assert compared == ["", "weights", "weights", ""]
    assert list(tmp_path.iterdir()) == []


def test_results_that_differ_are_noticed(problem: Problem) -> None:
    with pytest.raises(Disagreement, match="weights differ by"):
        merging.agreement("magmax", problem.files[0], problem.files[1])
    assert merging.agreement("magmax", problem.files[0], problem.files[0]) == "weights equal"


def test_a_plain_way_without_the_memory_for_it_is_left_out(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "needed_mib", lambda problem, method: 2000)
    for free, left_out in ((1999, True), (2000, False), (None, False)):
        monkeypatch.setattr(merging, "available_mib", lambda free=free: free)
        work = merging.row(problem, "ties", 1, compared=True)
        assert (work.plain is None) == left_out == ("2,000 MiB" in work.against)
