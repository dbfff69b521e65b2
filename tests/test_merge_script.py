"""merge.py as a user runs it."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.arguments import HELP
from merging.options import MergeOptions
from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.loading import load_encoder
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning, trained_parameters
from tests.helpers import files_below, run_here, run_script, start_script, write_images, write_model


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A base and two models of it that are no CLIPs, as files."""
    for seed, name in enumerate(("base", "sun", "dtd")):
        generator = torch.Generator().manual_seed(seed)
        tensors = {"layers.0.w": torch.randn(64, 48, generator=generator), "layers.0.b": torch.randn(64, generator=generator)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return [tmp_path / f"{name}.safetensors" for name in ("base", "sun", "dtd")]


def arguments(files: list[Path], **more: object) -> list[object]:
    """--base, --models and further flags; True stands for a flag without a value."""
    flags = [word for name, value in more.items() for word in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))]
    return ["--base", files[0], "--models", *files[1:], *flags]


def test_a_checkpoint_is_written_that_other_commands_take(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")
    for seed, tuning in enumerate(("full", "lora")):
        encoder, options = load_encoder(str(folder)), TuningOptions(rank=2)
        header = make_header(encoder, tuning, options, base_sha256(encoder))
        apply_tuning(encoder, tuning, options)
        for parameter in trained_parameters(encoder).values():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        save_checkpoint(tmp_path / f"{tuning}.safetensors", encoder, header)
    models = [tmp_path / "full.safetensors", f"other={tmp_path / 'lora.safetensors'}"]
    ended = run_here(
        "merge", "--method", "ties", "--models", *models, "--towers", "both", "--out", tmp_path / "merged.safetensors", "--count"
    )
    counted, told = ended.succeeded().stdout.splitlines()
    assert counted.startswith("merged: 62 of 62 tensors")
    assert told.startswith("ties: 62 tensors merged, ")
    assert told.endswith(str(tmp_path / "merged.safetensors"))
    assert ended.stderr == ""
    write_images(tmp_path / "images", 2)
    tested = ["--model-path", tmp_path / "merged.safetensors", "--eval-datasets", f"imagefolder:{tmp_path / 'images'}", "--split", "test"]
    run_here("test", *tested, "--num-workers", 0, "--outfile", tmp_path / "results.csv").succeeded()


def test_a_negative_scaling_forgets(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    run_here("merge", *arguments(files[:2], method="task_arithmetic", scaling=-0.5, out=out)).succeeded()
    base, sun, found = (load_file(path)["layers.0.w"] for path in (*files[:2], out))
    torch.testing.assert_close(found, base - 0.5 * (sun - base))


def test_analyses_are_written_with_and_without_a_method(files: list[Path], tmp_path: Path) -> None:
    looks = {"cosine": tmp_path / "cosine.csv", "norms": tmp_path / "norms.csv"}
    ended = run_here("merge", *arguments(files, **looks, count=True)).succeeded()
    assert ended.stdout.splitlines()[0] == "merged: 2 of 2 tensors, 3,136 of 3,136 parameters, from 2 models"
    with looks["cosine"].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["model"] for row in rows] == ["sun", "dtd"]
    assert float(rows[0]["dtd"]) == float(rows[1]["sun"])
    assert all((tmp_path / f"cosine{suffix}").stat().st_size > 1000 for suffix in (".png", ".pdf"))
    assert [row.split(",")[:2] for row in looks["norms"].read_text().splitlines()][1:3] == [["all", ""], ["layer", "layers.0"]]
    run_here("merge", *arguments(files, **looks)).refused("cosine.csv' exists; --overwrite")
    run_here("merge", *arguments(files, **looks, overwrite=True, method="magmax", out=tmp_path / "merged.safetensors")).succeeded()
    assert (tmp_path / "merged.safetensors").is_file()


def test_list_tells_every_method_with_paper_data_and_options() -> None:
    from merging.table import METHODS

    told = run_here("merge", "--list").succeeded().stdout
    for method in METHODS.values():
        assert method.name in told
        assert f"{method.paper}; data: {method.data}; options: " in told
    assert "--no-normalize" in told


def test_every_option_has_a_flag_with_a_help_text() -> None:
    assert HELP.keys() == MergeOptions.__dataclass_fields__.keys()


def test_equal_models_are_told_on_stderr(files: list[Path], tmp_path: Path) -> None:
    more = arguments([*files, f"again={files[1]}", f"still={files[0]}"], method="simple_average", out=tmp_path / "merged.safetensors")
    ended = run_here("merge", *more).succeeded()
    assert ended.stderr.splitlines() == [
        "merge.py: 'still' equals the base 'base' in every merged tensor: its task vector is 0.",
        "merge.py: 'sun' and 'again' are equal in every merged tensor.",
    ]


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "unknown method": ({"method": "tise", "out": "x.safetensors"}, "Unknown method 'tise'; did you mean 'ties'?"),
    "no method": ({}, "Nothing to do: name a --method"),
    "no out": ({"method": "ties"}, "--out is missing"),
    "out without method": ({"out": "x.safetensors"}, "--out and --per-model are for merging"),
    "another's option": (
        {"method": "ties", "out": "x.safetensors", "drop_rate": 0.3},
        "--drop-rate has no meaning for ties, which reads --scaling, --density, --merge-func, --scope",
    ),
    "option without method": ({"count": True, "density": 0.3}, "--density has no meaning for looking at models"),
    "density": ({"method": "ties", "out": "x.safetensors", "density": 20}, "--density is 20; it must be above 0 and at most 1"),
    "a rate beyond float32": (
        {"method": "wemoe", "out": "x.safetensors", "adapt_lr": 1e38},
        "--adapt-lr is 1e+38; it must be above 0 and at most 1e+30",
    ),
    "weights": (
        {"method": "weighted_average", "out": "x.safetensors", "weights": 0.5},
        "--weights must give one number for each of the 2 models",
    ),
    "suffix": ({"method": "ties", "out": "x.pt"}, "--out 'x.pt' does not end in .safetensors"),
    "cosine": ({"cosine": "x.txt"}, "--cosine 'x.txt' does not end in .csv"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_mistakes_are_one_sentence(files: list[Path], how: str) -> None:
    more, words = REFUSED[how]
    run_here("merge", *arguments(files, **more)).refused(words)


def test_a_task_vector_needs_a_base_and_a_merge_needs_models(files: list[Path], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "merged.safetensors"]
    run_here("merge", "--method", "ties", "--models", *files, *out).refused("name it with --base")
    run_here("merge", "--cosine", tmp_path / "x.csv", "--models", *files).refused("which need a base; name it with --base")
    run_here("merge", "--method", "ties", "--base", files[0], *out).refused("--models is missing")
    assert len(list(tmp_path.iterdir())) == 3


def test_truncated_and_unfitting_inputs_are_told_and_nothing_is_written(files: list[Path], tmp_path: Path) -> None:
    content = files[2].read_bytes()
    out = tmp_path / "merged.safetensors"
    for damaged in (content[: len(content) // 2], content[:6], b"\x00" + content[1:]):
        files[2].write_bytes(damaged)
        run_here("merge", *arguments(files, method="ties", out=out)).refused(f"'{files[2]}' is not a whole safetensors file")
    save_file({"layers.0.w": torch.zeros(64, 48), "layers.0.other": torch.zeros(64)}, files[2])
    run_here("merge", *arguments(files, method="ties", out=out)).refused(
        "'dtd' has a tensor 'layers.0.other' (64 float32), which 'base' has not"
    )
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_merge_that_is_ended_leaves_no_output(files: list[Path], tmp_path: Path, number: signal.Signals) -> None:
    before, out = files_below(tmp_path), tmp_path / "new" / "merged.safetensors"
    process = start_script("merge", *arguments(files, method="wudi", iterations=10**9, out=out))
    while not list(tmp_path.glob("new/.merged*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert not out.exists()
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert files_below(tmp_path) == before


def test_help_needs_no_torch() -> None:
    ended = run_script("merge", "--help").succeeded()
    assert "--drop-rate" in ended.stdout
