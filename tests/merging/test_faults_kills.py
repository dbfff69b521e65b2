"""SIGKILL at any moment: there is no output or the right one, and the same command ends as if nothing had been."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merging import resuming
from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.loading import load_encoder
from models.tuning_options import TuningOptions
from models.tunings import apply_tuning, trained_parameters
from tests.faults.killing import run_until
from tests.faults.results import contents
from tests.faults.scale import count, times
from tests.helpers import run_here, start_script, write_images, write_model
from tests.merging import hugging_face as hf

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
NAMES = ("one", "two")
KILLS = times(1, 40)  # of each case, besides the one at the last touch of a file; 1000 are all, which takes ten minutes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain files, Hugging Face folders, a model of two blocks with two checkpoints, and images."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(("base", *NAMES)):
        generator = torch.Generator().manual_seed(seed)
        save_file({f"layers.{i}.w": torch.randn(20, 30, generator=generator) for i in range(3)}, folder / f"plain-{name}.safetensors")
        hf.write(folder / f"hf-{name}", hf.clip(0) if name == "base" else hf.tuned(hf.clip(0), seed))
    model = write_model(folder / "model")
    for seed, name in enumerate(NAMES):
        encoder, options = load_encoder(str(model)), TuningOptions(towers="vision")
        header = replace(make_header(encoder, "full", options, base_sha256(encoder)), created="2020-01-01T00:00:00+00:00")
        apply_tuning(encoder, "full", options)
        for parameter in trained_parameters(encoder).values():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        save_checkpoint(folder / f"{name}.safetensors", encoder, header)
        write_images(folder / f"images-{name}", 3, seed)
    return folder


def plain(inputs: Path) -> list[object]:
    return ["--base", inputs / "plain-base.safetensors", "--models", *(f"{name}={inputs}/plain-{name}.safetensors" for name in NAMES)]


def huggingface(inputs: Path) -> list[object]:
    return ["--base", inputs / "hf-base", "--models", *(f"{name}={inputs}/hf-{name}" for name in NAMES)]


def learning(inputs: Path) -> list[object]:
    models = ["--base", inputs / "model", "--models", *(inputs / f"{name}.safetensors" for name in NAMES)]
    images = ["--tasks", *(f"imagefolder:{inputs}/images-{name}" for name in NAMES), "--num-workers", 0, "--device", "cpu"]
    return [*models, *images, "--heads", inputs / "heads", "--adapt-batch-size", 2, "--adapt-lr", 0.01]


CASES: dict[str, tuple[Callable[[Path], list[object]], list[object], str]] = {
    "simple_average": (plain, [], "merged.safetensors"),
    "ties": (plain, [], "new/merged.safetensors"),
    "magmax": (huggingface, [], "new/merged"),
    "emr": (plain, ["--per-model"], "each"),
    "tall_mask": (huggingface, ["--per-model"], "each"),
    "wemoe": (learning, ["--adapt-steps", 3], "merged.safetensors"),
    "layer_wise_adamerging": (learning, ["--adapt-steps", 3], "merged.safetensors"),
    "concrete_task_wise_adamerging": (learning, ["--adapt-steps", 2, "--mask-steps", 2], "merged.safetensors"),
}


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of learning after every step."""
    monkeypatch.setattr(resuming, "SECONDS", 0)
    monkeypatch.setattr(resuming, "SAVE_COST", 0)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("method", CASES)
def test_a_merge_that_is_killed_anywhere_ends_as_one_that_was_not(inputs: Path, tmp_path: Path, method: str) -> None:
    models, flags, out = CASES[method]
    folder = tmp_path / "out"

    def words(*more: object) -> list[object]:
        return ["--method", method, *models(inputs), *flags, "--out", folder / out, *more]

    touches = run_until(None, folder, "merge", *words())
    assert touches is not None
    expected = contents(folder)
    moments = random.Random(method)
    for touch in (*sorted(moments.sample(range(1, touches), min(KILLS, touches - 1))), touches):
        shutil.rmtree(folder)
        assert run_until(touch, folder, "merge", *words()) is None
        count("kills")
        left = contents(folder) if folder.exists() else {}
        whole = [
            name for name in left if name.endswith(".safetensors") and not name.split("/")[-1].startswith(".") and ".state." not in name
        ]
        assert all(left[name] == expected[name] for name in whole)
        if whole:
            run_here("merge", *words()).refused("exists; --overwrite replaces it")
        run_here("merge", *words(*(["--overwrite"] if whole else []))).succeeded()
        assert contents(folder) == expected, touch


def test_learning_that_gets_sigterm_goes_on_in_a_process_of_its_own(inputs: Path, tmp_path: Path) -> None:
    """As a scheduler does it; the state is kept at once, whenever it was kept before."""
    words = ["--method", "task_wise_adamerging", *learning(inputs), "--adapt-steps", 10**6, "--out", tmp_path / "merged.safetensors"]
    process = start_script("merge", *words)
    assert process.stdout is not None
    assert "transductive: uses unlabelled test images" in process.stdout.readline()
    while not list(tmp_path.glob(".merged*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.startswith("merge.py: Stopped by SIGTERM in step ")
    assert err.endswith(f"the same command goes on from '{tmp_path / 'merged.state.safetensors'}'.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["merged.state.safetensors"]
    words[words.index(10**6)] = 3
    run_here("merge", *words).refused("belongs to a run with adapt_steps = 1000000, not 3", "--overwrite")
    run_here("merge", *words, "--overwrite").succeeded()
    assert [path.name for path in tmp_path.iterdir()] == ["merged.safetensors"]


def evaluated(inputs: Path) -> list[object]:
    return ["--adapt-steps", 3, "--evaluate", f"imagefolder:{inputs}/images-one"]


def test_a_merge_that_names_no_place_says_that_no_state_is_kept(inputs: Path) -> None:
    ended = run_here("merge", "--method", "task_wise_adamerging", *learning(inputs), *evaluated(inputs)).succeeded()
    assert "no --out, --save-weights or --report tells a place for its state; once stopped, it begins anew." in ended.stdout


@pytest.mark.usefixtures("every_step")
def test_a_sweep_goes_on_at_the_merge_that_was_stopped(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three merges of three steps, stopped in the second, take nine steps in all; the best is not learnt again to be written."""
    real, steps = torch.optim.Adam.step, []

    def step(self: torch.optim.Adam, *args: object, **kwargs: object) -> object:
        if len(steps) == 4:
            steps.append("stopped")
            raise KeyboardInterrupt
        steps.append("taken")
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    words = ["--method", "task_wise_adamerging", *learning(inputs), *evaluated(inputs), "--sweep", "scaling=0.1,0.2,0.3"]
    words += ["--out", tmp_path / "best.safetensors", "--report", tmp_path / "best.json"]
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    assert run_here("merge", *words).status == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"best.scaling-0.{n}.state.safetensors" for n in (1, 2)]
    run_here("merge", *words, "--save-weights", tmp_path / "w.safetensors").refused("leave one of them out")
    run_here("merge", *words).succeeded()
    assert steps.count("taken") == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.safetensors"]
