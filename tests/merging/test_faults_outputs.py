"""What can be wrong with where a merge is written: one sentence, status 2, and nothing is left."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import merging.output
from common.errors import UserError
from merging.stream import Spec, TensorFile, TensorWriter, write_tensors
from tests.helpers import Ended, files_below, run_here
from tests.merging import hugging_face as hf


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """A base and two models, 40 kB each."""
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{name}.safetensors" for name in ("base", "sun", "dtd")]
    for seed, path in enumerate(paths):
        save_file({"w": torch.randn(100, 100, generator=torch.Generator().manual_seed(seed))}, path)
    return paths


def merge(models: list[Path], out: Path, *more: object, method: str = "ties") -> Ended:
    return run_here("merge", "--method", method, "--base", models[0], "--models", *models[1:], "--out", out, *more)


@pytest.fixture
def small_files(models: list[Path]) -> Iterator[None]:
    """No file may from now on grow beyond 20 kB, as on a disk that has no more room."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def refused_and_untouched(models: list[Path], out: Path, *words: object, **how: Any) -> None:
    before = files_below(models[0].parents[1])
    merge(models, out, *how.pop("more", ()), **how).refused(*words)
    assert files_below(models[0].parents[1]) == before
    assert not (models[0].parents[1] / "new").exists()


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("taken_at_once", [True, False])
def test_a_file_that_cannot_grow(models: list[Path], tmp_path: Path, taken_at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not taken_at_once:  # as where the system cannot take the space before the work
        monkeypatch.delattr("os.posix_fallocate")
    refused_and_untouched(models, tmp_path / "new" / "merged.safetensors", "Cannot write '", "merged.safetensors': File too large.")
    refused_and_untouched(models, tmp_path / "new", "Cannot write '", "File too large.", method="emr", more=["--per-model"])


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["os.posix_fallocate", "os.fsync", "pathlib.Path.replace", "tempfile.mkdtemp"])
def test_a_disk_that_is_full_in_any_step(models: list[Path], tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, full)
    refused_and_untouched(models, tmp_path / "merged.safetensors", "Cannot write '", "merged.safetensors': No space left on device.")


def test_a_disk_that_fills_up_between_two_tensors(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorWriter, "write", full)
    refused_and_untouched(models, tmp_path / "new" / "merged.safetensors", "Cannot write '", "No space left on device.")


def test_a_disk_that_is_full_for_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [Path(hf.write(tmp_path / "in" / name, hf.clip(seed))) for seed, name in enumerate(("base", "sun"))]
    monkeypatch.setattr(merging.output.Path, "write_bytes", full)
    refused_and_untouched(folders, tmp_path / "new", "Cannot write '", "config.json': No space left on device.")


def test_a_folder_that_may_not_be_written_to(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.access is asked; who runs the tests may be root, whom no mode of a folder stops."""
    (tmp_path / "locked").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: "locked" not in str(path) and real(path, mode, **more))
    refused_and_untouched(models, tmp_path / "locked" / "x.safetensors", f"The output folder '{tmp_path / 'locked'}' is not writable.")


@pytest.mark.skipif(os.geteuid() == 0, reason="no mode of a folder stops root")
def test_a_folder_that_is_read_only(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    refused_and_untouched(models, tmp_path / "locked" / "x.safetensors", "is not writable")


def test_a_folder_below_a_file_and_outputs_that_exist(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "there").write_text("earlier")
    (tmp_path / "there.safetensors").write_text("earlier")
    refused_and_untouched(models, tmp_path / "there" / "x.safetensors", "Cannot create the output folder")
    refused_and_untouched(models, tmp_path / "there.safetensors", "there.safetensors' exists; --overwrite replaces it.")


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    folders = [Path(hf.write(tmp_path / "in" / name, hf.clip(seed))) for seed, name in enumerate(("base", "sun"))]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    refused_and_untouched(folders, tmp_path / "mine", "mine' exists; --overwrite replaces it.")
    (tmp_path / "mine" / "config.json").write_bytes((folders[0] / "config.json").read_bytes())  # as a kill leaves it
    merge(folders, tmp_path / "mine").succeeded()


def test_a_model_that_cannot_be_hashed(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.merge.sha256_of_file", full)
    refused_and_untouched(models, tmp_path / "new" / "merged.safetensors", f"Cannot read '{models[1]}': No space left on device.")


def test_a_file_that_another_writer_is_making_is_left_alone(tmp_path: Path) -> None:
    path, specs = tmp_path / "x.safetensors", {"a": Spec((2,), torch.float32)}
    with TensorWriter(path, specs) as first:
        write_tensors(path, {"a": torch.zeros(2)})
        first.write("a", torch.ones(2))
    assert torch.equal(TensorFile(path).read("a"), torch.ones(2))
    assert [found.name for found in tmp_path.iterdir()] == ["x.safetensors"]


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    tensors, metadata = {"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)}, {name: name for name in "hgfedcba"}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(UserError, match="No such file"):
        TensorFile(tmp_path / "three")
