"""The benchmark's two ways of merging, on encoders of one or two small layers: the released way is a second oracle for many methods."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks import merging

SMALL = {"WIDTH": 32, "HIDDEN": 64, "PATCH": 8, "TOKENS": 5, "EMBED": 16, "HEAD_WIDTH": 16, "BATCH": 4}


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> merging.Problem:
    """Three encoders of two layers, ten images each, in batches of four: the last is short."""
    for name, size in SMALL.items():
        monkeypatch.setattr(merging, name, size)
    files = merging.draw(tmp_path, 3, 2)
    problem = merging.Problem(files, tmp_path / "merged.safetensors", threads=1, layers=2, images=10)
    merging.write_seen(problem)
    return problem


@pytest.mark.parametrize("method", [name for name in merging.RELEASED if not name.startswith("dare")])
def test_both_ways_give_the_same(method: str, problem: merging.Problem) -> None:
    plain = dataclasses.replace(problem, out=problem.out.with_name("released.safetensors"))
    merging.released(plain, method)
    merging.streamed(problem, method)
    assert merging.difference(problem.out, plain.out) < merging.TOLERANCES.get(method, 1e-6)
    assert merging.difference(problem.out, problem.files[0]) > 1e-4


def test_dare_of_both_ways_keeps_about_half(problem: merging.Problem) -> None:
    """They draw other entries, so only their number can be compared."""
    from safetensors.torch import load_file

    base, kept = load_file(problem.files[0]), []
    for way in (merging.released, merging.streamed):
        way(problem, "dare_task_arithmetic")
        merged = load_file(problem.out)
        problem.out.unlink()
        moved = [(merged[name] != tensor).double().sum() for name, tensor in base.items()]
        kept.append(float(sum(moved) / sum(tensor.numel() for tensor in base.values())))
    assert kept == pytest.approx([1 - 0.5**3] * 2, abs=0.02)


def test_the_command_shows_both_ways_of_every_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "alone", lambda way, *arguments: way(*arguments))
    for name, size in SMALL.items():
        monkeypatch.setattr(merging, name, size)
    command = ["merging", "--models", "2", "--layers", "1", "--images", "3", "--threads", "1", "--methods", "magmax", "regmean", "emr"]
    monkeypatch.setattr("sys.argv", [*command, "--folder", str(tmp_path)])
    merging.main()
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert [len(lines[name]) for name in ("copy", "magmax", "regmean", "emr")] == [5, 9, 9, 5]
    assert float(lines["regmean"][-1]) < merging.TOLERANCES["regmean"]
    assert list(tmp_path.iterdir()) == []


def test_results_that_differ_are_marked(problem: merging.Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "alone", lambda way, *arguments: way(*arguments))
    assert merging.agreement("magmax", problem.files[0], problem.files[1]).endswith(" !")
    assert merging.agreement("magmax", problem.files[0], problem.files[0]) == "0.0e+00"
