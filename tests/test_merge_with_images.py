"""merge.py as a user runs it where images are looked at: evaluations, sweeps and data-aware methods, on tiny and drawn tasks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import base_sha256, make_header, read_header, save_checkpoint
from models.loading import load_encoder
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning, trained_parameters
from tests.helpers import Ended, run_here

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

TASKS = ("Glyphs-Digits", "Shapes-Texture")  # which the checkpoints say that they were trained on


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints around tiny, ``one`` and ``two.safetensors``."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, task) in enumerate(zip(("one", "two"), TASKS, strict=True)):
        encoder, options = load_encoder("tiny"), TuningOptions(towers="vision")
        header = replace(make_header(encoder, "full", options, base_sha256(encoder)), task=task)
        apply_tuning(encoder, "full", options)
        generator = torch.Generator().manual_seed(seed)
        for parameter in trained_parameters(encoder).values():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        save_checkpoint(folder / f"{name}.safetensors", encoder, header)
    return [folder / "one.safetensors", folder / "two.safetensors"]


def merge(models: list[Path], folder: Path, *words: object) -> Ended:
    """merge.py with what every test has."""
    return run_here("merge", "--base", "tiny", "--models", *models, "--num-workers", 0, "--heads", folder / "heads", *words)


def evaluated(folder: Path) -> list[object]:
    return ["--evaluate", *TASKS, "--eval-split", "val", "--report", folder / "r.json"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def accuracy_in(results: Path) -> float:
    with results.open() as stream:
        return float(next(csv.DictReader(stream))["top1"])


def test_a_merge_is_written_and_evaluated(models: list[Path], tmp_path: Path) -> None:
    ended = merge(models, tmp_path, "--method", "ties", "--out", tmp_path / "merged.safetensors", *evaluated(tmp_path), "--device", "cpu")
    told = ended.succeeded().stdout.splitlines()
    assert told[0].startswith("ties: ")
    assert told[-1] == f"report: {tmp_path / 'r.json'}"
    report = read(tmp_path / "r.json")
    assert report["clipscope"]["merge"]["method"] == "ties"
    assert "images" not in report["clipscope"]["merge"]
    assert 0 < report["average"]["accuracy"] < 1
    tested = ["--model-path", tmp_path / "merged.safetensors", "--eval-datasets", TASKS[0], "--split", "val", "--num-workers", 0]
    run_here("test", *tested, "--outfile", tmp_path / "results.csv").succeeded()
    assert report[TASKS[0]]["accuracy"] == pytest.approx(accuracy_in(tmp_path / "results.csv"), abs=1e-6)


def test_a_sweep_writes_the_best(models: list[Path], tmp_path: Path) -> None:
    words = ["--method", "task_arithmetic", "--sweep", "scaling=0,0.5", "--out", tmp_path / "best.safetensors"]
    ended = merge(models, tmp_path, *words, *evaluated(tmp_path)).succeeded()
    assert "Best on the val images: scaling=" in ended.stdout
    best = next(report for report in read(tmp_path / "r.json") if report["clipscope"]["best"])
    written = read_header(tmp_path / "best.safetensors").settings["clipscope_merge"]["options"]
    assert written == best["clipscope"]["sweep"]


def test_models_are_evaluated_one_by_one(models: list[Path], tmp_path: Path) -> None:
    told = merge(models, tmp_path, "--include-base", *evaluated(tmp_path)).succeeded().stdout.splitlines()
    assert told[3].split() == [*TASKS, "average"]
    assert [line.split()[0] for line in told[4:7]] == ["tiny", "one", "two"]
    assert [report["model_info"]["name"] for report in read(tmp_path / "r.json")] == ["tiny", "one", "two"]


def test_regmean_looks_at_training_images(models: list[Path], tmp_path: Path) -> None:
    words = ["--method", "regmean", "--examples", 8, "--seed", 3]
    ended = merge(models, tmp_path, *words, "--out", tmp_path / "merged.safetensors", *evaluated(tmp_path)).succeeded()
    assert ended.stdout.startswith("regmean: looks at up to 8 train images each of Glyphs-Digits, Shapes-Texture.\n")
    record = read_header(tmp_path / "merged.safetensors").settings["clipscope_merge"]["images"]
    assert record == read(tmp_path / "r.json")["clipscope"]["merge"]["images"]
    assert {**record, "tasks": None} == {"transductive": False, "examples": 8, "seed": 3, "tasks": None}
    assert [(name, images["task"], images["split"]) for name, images in record["tasks"].items()] == [
        ("one", "Glyphs-Digits", "train"),
        ("two", "Shapes-Texture", "train"),
    ]
    merge(models, tmp_path, *words, "--out", tmp_path / "again.safetensors").succeeded()
    first, again = (load_file(tmp_path / f"{name}.safetensors") for name in ("merged", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_adamerging_is_said_to_be_transductive_and_its_file_needs_no_images(models: list[Path], tmp_path: Path) -> None:
    words = ["--method", "layer_wise_adamerging", "--adapt-batch-size", 2, "--adapt-steps", 2, "--save-weights", tmp_path / "w.safetensors"]
    ended = merge(models, tmp_path, *words, "--out", tmp_path / "merged.safetensors", *evaluated(tmp_path)).succeeded()
    assert ended.stdout.startswith("layer_wise_adamerging: transductive: uses unlabelled test images of Glyphs-Digits, Shapes-Texture.\n")
    assert read(tmp_path / "r.json")["clipscope"]["merge"]["images"]["transductive"] is True
    words = ["--method", "layer_wise_adamerging", "--weights-file", tmp_path / "w.safetensors"]
    assert "images of" not in merge(models, tmp_path, *words, "--out", tmp_path / "again.safetensors").succeeded().stdout
    first, again = (load_file(tmp_path / f"{name}.safetensors") for name in ("merged", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_routed_encoder_is_written_and_evaluated(models: list[Path], tmp_path: Path) -> None:
    words = ["--method", "e_wemoe", "--adapt-batch-size", 2, "--adapt-steps", 2, "--out", tmp_path / "moe.safetensors"]
    ended = merge(models, tmp_path, *words, *evaluated(tmp_path)).succeeded()
    assert ended.stdout.startswith("e_wemoe: transductive: uses unlabelled test images")
    report = read(tmp_path / "r.json")
    assert report["clipscope"]["merge"]["images"]["transductive"] is True
    assert report["model_info"]["all_params"] > 800_000
    tested = ["--model-path", tmp_path / "moe.safetensors", "--eval-datasets", TASKS[0], "--split", "val", "--num-workers", 0]
    run_here("test", *tested, "--outfile", tmp_path / "results.csv").succeeded()
    assert report[TASKS[0]]["accuracy"] == pytest.approx(accuracy_in(tmp_path / "results.csv"), abs=1e-6)


def test_a_hugging_face_base_keeps_its_form(models: list[Path], tmp_path: Path) -> None:
    """Data-aware methods work under open_clip's names, which this base has not."""
    base, words = tmp_path / "base", ["--method", "regmean", "--examples", 4, "--num-workers", 0, "--models", *models]
    run_here("export", "--model-name", "tiny", "--to", "huggingface", "--out", base).succeeded()
    run_here("merge", *words, "--base", base, "--heads", tmp_path, "--out", tmp_path / "merged").succeeded()
    run_here("merge", *words, "--base", "tiny", "--heads", tmp_path, "--out", tmp_path / "merged.safetensors").succeeded()
    expected = {name.removeprefix("model."): tensor for name, tensor in load_file(tmp_path / "merged.safetensors").items()}
    found = load_encoder(str(tmp_path / "merged")).model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)
    run_here("merge", *words, "--base", base, "--only", "*", "--out", tmp_path / "x").refused("--only does not go with regmean")


REFUSED: dict[str, tuple[list[object], str]] = {
    "no such task": (["--tasks", "Shapes-Textur", "Glyphs-Digits"], "Shapes-Textur"),
    "too few": (["--tasks", "Shapes-Texture"], "--tasks names 1 tasks for 2 models (one, two); it must be one for each."),
    "a group": (["--tasks", "one=TA8"], "'TA8' are 8 tasks; --tasks takes one for each model."),
    "adapt split": (["--adapt-split", "val"], "--adapt-split has no meaning for regmean, which takes images from --data-split."),
    "both towers": (["--towers", "both"], "regmean merges image towers by their images"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_mistakes_are_one_sentence(models: list[Path], tmp_path: Path, how: str) -> None:
    more, words = REFUSED[how]
    merge(models, tmp_path, "--method", "regmean", "--out", tmp_path / "merged.safetensors", *more).refused(words)
    assert not (tmp_path / "merged.safetensors").exists()


WITHOUT_MEANING: dict[str, tuple[list[object], str]] = {
    "tasks": (["--method", "ties", "--tasks", "Digits", "Digits"], "--tasks is for methods that look at images"),
    "examples": (["--method", "concrete_task_arithmetic", "--examples", 3], "adapts to all images of --adapt-split"),
    "seed": (["--method", "ties", "--seed", 3], "--seed has no meaning for ties"),
    "sweep": (["--method", "wemoe", "--evaluate", "Digits", "--sweep", "scaling=0.1,0.2"], "--sweep is over merges into one encoder"),
}


@pytest.mark.parametrize("how", WITHOUT_MEANING)
def test_flags_without_a_meaning_are_refused(models: list[Path], tmp_path: Path, how: str) -> None:
    more, words = WITHOUT_MEANING[how]
    merge(models, tmp_path, *more, "--out", tmp_path / "merged.safetensors").refused(words)


def test_a_model_that_does_not_tell_its_task_is_told(models: list[Path], tmp_path: Path) -> None:
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(models[0]).items()}
    save_file(tensors, tmp_path / "mine.safetensors")
    words = ["--method", "fisher", "--out", tmp_path / "merged.safetensors"]
    merge([tmp_path / "mine.safetensors"], tmp_path, *words).refused("'mine' does not tell its own; --tasks names them.")
    merge([tmp_path / "mine.safetensors"], tmp_path, *words, "--tasks", TASKS[0], "--examples", 1).succeeded()
