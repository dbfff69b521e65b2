"""train.py as users and schedulers run it: killed, signalled, under torchrun, with loader processes and trackers."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from models.checkpoint import load_checkpoint, read_header
from models.loading import load_encoder
from models.lora import folded_state_dict
from models.tensors import read_safetensors
from tests.helpers import Ended, run_here, run_script, start_script

SHORT = ["--bs", 4, "--nepochs", 2, "--lr", 0.01, "--val-p", 0.2, "--num-workers", 0, "--device", "cpu"]


@pytest.fixture
def flags(small_model, image_folder):
    """A function: the flags of a short run, by default a LoRA of the small model on the coloured images."""

    def make(model_dir, tuning="lora", *more):
        return [
            *SHORT,
            "--dataset",
            f"imagefolder:{image_folder}",
            "--model-name",
            tuning,
            "--base-model",
            small_model,
            "--model-dir",
            model_dir,
            *more,
        ]

    return make


def checkpoints(folder):
    """The tensors of best and last."""
    found = {}
    for kind in ("best", "last"):
        (path,) = folder.glob(f"*_{kind}.safetensors")
        found |= {f"{kind}/{name}": tensor for name, tensor in read_safetensors(path)[0].items()}
    return found


def assert_same(one, other, tolerance=0.0):
    one, other = checkpoints(one), checkpoints(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def record(folder):
    (path,) = folder.glob("*_run.json")
    return json.loads(path.read_text())


def wait_for_step(process, folder, epoch, step):
    """Until the state on disk is at least at that step of that epoch."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for path in folder.glob("*_state.safetensors"):
            try:
                with safe_open(path, framework="np") as file:
                    progress = json.loads(file.metadata()["progress"])
            except (OSError, SafetensorError):
                continue  # it was renamed over between the two looks
            if (progress["epoch"], progress["step"]) >= (epoch, step):
                return
        time.sleep(0.01)
    process.kill()
    raise AssertionError("no progress")


# --- killed and signalled ------------------------------------------------------------------------------------------

LONG = ["--nepochs", 12, "--save-minutes", 0]


def test_a_run_killed_in_mid_epoch_goes_on_to_the_weights_of_one_that_was_not(flags, tmp_path):
    """SIGKILL to the real script, which saves after every step; then --resume: best and last are equal bit for bit.

    More of that, in forks of one process and without loader processes: tests/faults/test_kills.py.
    """
    how = ["--optimizer", "SGD", "--bs", 2, "--augment", "crop-flip", "--num-workers", 2, "--nepochs", 4]
    arguments = flags(tmp_path / "killed", "full", *LONG, *how)
    process = start_script("train", *arguments)
    wait_for_step(process, tmp_path / "killed", epoch=1, step=2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "killed").glob("*_last.safetensors")) == []
    resumed = run_here("train", *arguments, "--resume").succeeded()
    assert "resuming at epoch" in resumed.stdout
    run_here("train", *flags(tmp_path / "whole", "full", *LONG, *how)).succeeded()
    assert_same(tmp_path / "killed", tmp_path / "whole")
    one, other = record(tmp_path / "killed"), record(tmp_path / "whole")
    assert [entry["loss"] for entry in one["epochs"]] == [entry["loss"] for entry in other["epochs"]]
    assert one["best_epoch"] == other["best_epoch"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_its_state_saved_and_status_75(flags, tmp_path, number):
    """One line on stderr; the loader processes end too. With --resume the script ends as if nothing had been."""
    arguments = flags(tmp_path / "stopped", "adapter", "--augment", "crop", "--num-workers", 1, *LONG)
    process = start_script("train", *arguments)
    wait_for_step(process, tmp_path / "stopped", epoch=1, step=2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (75, f"train.py: Stopped by {number.name}; the state is saved, --resume goes on from it.\n")
    assert "epoch   1/12" in out
    run_here("train", *arguments, "--resume").succeeded()
    run_here("train", *flags(tmp_path / "whole", "adapter", "--augment", "crop", *LONG)).succeeded()
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_says_so(flags, tmp_path):
    run_here("train", *flags(tmp_path)).succeeded()
    again = run_here("train", *flags(tmp_path, "lora", "--resume")).succeeded()
    (best,) = tmp_path.glob("*_best.safetensors")
    assert again.stdout == f"finished already: {best}\nbest checkpoint: {best}\n"


# --- the same whatever the machine ---------------------------------------------------------------------------------


def test_loader_processes_do_not_change_the_weights(flags, tmp_path):
    for number in (0, 1, 2):
        run_here("train", *flags(tmp_path / str(number), "bias", "--augment", "crop-flip", "--num-workers", number)).succeeded()
    assert_same(tmp_path / "0", tmp_path / "1")
    assert_same(tmp_path / "0", tmp_path / "2")


@pytest.mark.parametrize(
    ("tuning", "how"),
    [
        ("full", ["--bs", 6, "--accumulate", 1, "--augment", "crop-flip", "--num-workers", 1, "--clip-norm", 1, "--seed", 1]),
        ("adapter", ["--bs", 3, "--accumulate", 2, "--optimizer", "AdamW", "--lr", "1e-3"]),
    ],
)
def test_two_processes_train_to_the_weights_of_one(flags, tmp_path, tuning, how):
    """19 images in batches of 6, and of 3: the last batch is a single image, so that one of the processes has none."""
    ended = run_script("train", *flags(tmp_path / "two", tuning, *how), processes=2).succeeded()
    alone = run_here("train", *flags(tmp_path / "one", tuning, *how)).succeeded()
    assert_same(tmp_path / "one", tmp_path / "two", 1e-5)
    two, one = record(tmp_path / "two"), record(tmp_path / "one")
    assert (two["processes"], one["processes"]) == (2, 1)
    for entry, other in zip(two["epochs"], one["epochs"], strict=True):
        assert entry["val_accuracy"] == other["val_accuracy"]
        assert entry["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert ended.stdout.count("before training") == alone.stdout.count("before training") == 1
    assert len(list((tmp_path / "two").iterdir())) == 3
    assert "Traceback" not in ended.stderr


def test_a_run_of_two_processes_goes_on_in_one(flags, tmp_path):
    """Stopped by a signal to torchrun, which hands it on to both."""
    arguments = flags(tmp_path / "stopped", "lora", "--bs", 2, *LONG)
    process = start_script("train", *arguments, processes=2)
    wait_for_step(process, tmp_path / "stopped", epoch=2, step=0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0
    (state,) = (tmp_path / "stopped").glob("*_state.safetensors")
    assert state.stat().st_size > 0
    run_here("train", *arguments, "--resume").succeeded()
    run_here("train", *flags(tmp_path / "whole", "lora", "--bs", 2, *LONG)).succeeded()
    assert_same(tmp_path / "stopped", tmp_path / "whole", 1e-5)


# --- flags ---------------------------------------------------------------------------------------------------------


def test_every_flag_arrives_in_the_checkpoint(flags, tmp_path):
    how = [
        *["--rank", 3, "--lora-scale", 0.5, "--lora-mlp", "--optimizer", "Adam", "--wd", 0.02, "--schedule", "linear", "--warmup", 2],
        *["--clip-norm", 0.7, "--accumulate", 2, "--augment", "crop", "--seed", 9, "--template", "a {c}", "--template", "the {c}"],
    ]
    run_here("train", *flags(tmp_path, "lora", *how)).succeeded()
    (path,) = tmp_path.glob("*_best.safetensors")
    header = read_header(path)
    assert (header.tuning, header.seed, header.templates) == ("lora", 9, ("a {c}", "the {c}"))
    assert dict(header.options) == {"rank": 3, "lora_scale": 0.5, "lora_mlp": True}
    expected = {
        **{"optimizer": "Adam", "wd": 0.02, "schedule": "linear", "warmup": 2, "clip_norm": 0.7, "accumulate": 2, "augment": "crop"},
        **{"lr": 0.01, "epochs": 2, "batch_size": 4, "val_p": 0.2, "seed": 9, "precision": "fp32"},
    }
    assert {key: header.settings[key] for key in expected} == expected


@pytest.mark.parametrize("tuning", ["full", "l-lora"])
def test_the_vision_tower_alone_trains(flags, small_model, tmp_path, tuning):
    """Text side, projections and logit scale stay the base's to the bit; the head is the frozen zero-shot one."""
    how = ["--lora-targets", "v,k,out", "--rank", 3] if tuning == "l-lora" else []
    run_here("train", *flags(tmp_path, tuning, "--towers", "vision", "--optimizer", "Adam", *how)).succeeded()
    (path,) = tmp_path.glob("*_last.safetensors")
    assert "-vision_" in path.name
    options = {"rank": 3, "lora_scale": 0.2, "lora_mlp": False, "lora_targets": "k,v,out"} if tuning == "l-lora" else {}
    assert dict(read_header(path).options) == {**options, "towers": "vision"}
    tuned, base = folded_state_dict(load_checkpoint(path)[0].model), load_encoder(str(small_model)).model.state_dict()
    changed = {name for name, tensor in tuned.items() if not torch.equal(tensor, base[name])}
    assert changed and all(name.startswith("visual.") and name != "visual.proj" for name in changed)
    assert tuning == "full" or {name.rpartition("attn.")[2] for name in changed} == {"in_proj_weight", "out_proj.weight"}


def test_the_recipe_of_merging_is_a_preset(flags, tmp_path):
    """configs/merging/finetune.toml, shortened: typed flags come before the file's."""
    recipe = ["--config", "configs/merging/finetune.toml", "--base-model", flags("x")[flags("x").index("--base-model") + 1]]
    data = ["--dataset", flags("x")[flags("x").index("--dataset") + 1], "--model-dir", tmp_path, "--num-workers", 0, "--device", "cpu"]
    (tmp_path / "prompts.txt").write_text("a {}\n")
    run_here("train", *recipe, *data, "--prompts", tmp_path / "prompts.txt", "--steps", 3, "--bs", 8, "--val-p", 0.2).succeeded()
    (path,) = tmp_path.glob("*_last.safetensors")
    header = read_header(path)
    assert (header.tuning, dict(header.options), header.epoch) == ("full", {"towers": "vision"}, 1)
    expected = {"optimizer": "Adam", "beta2": 0.999, "lr": 1e-5, "wd": 0.0, "schedule": "constant", "steps": 3, "epochs": None}
    expected |= {"batch_size": 8, "seed": 42, "precision": "fp32", "augment": "none"}
    assert {key: header.settings[key] for key in expected} == expected
    assert "_bs8_steps3_seed42_beta2-0.999_" in path.name


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--steps", 3], ["--nepochs and --steps", "give one of them"]),
        (["--lora-targets", "q,w"], ["Unknown LoRA target 'w'"]),
        (["--beta2", 1], ["--beta2", "between 0 and 1"]),
    ],
)
def test_flags_that_make_no_sense(flags, tmp_path, more, words):
    run_here("train", *flags(tmp_path / "ckpts", "lora", *more)).refused(*words)
    assert not (tmp_path / "ckpts").exists()


def test_towers_mean_nothing_to_an_adapter(flags, tmp_path):
    words = ["--towers belongs to full and lora and l-lora and bias and attention", "'adapter'"]
    run_here("train", *flags(tmp_path / "ckpts", "adapter", "--towers", "vision")).refused(*words)


def test_an_encoders_name_is_full_fine_tuning_of_it(flags, small_model, image_folder, tmp_path):
    run_here("train", *SHORT, "--dataset", f"imagefolder:{image_folder}", "--model-name", small_model, "--model-dir", tmp_path).succeeded()
    run_here("train", *flags(tmp_path / "full", "full")).succeeded()
    (path,) = tmp_path.glob("*_best.safetensors")
    assert read_header(path).tuning == "full"
    (other,) = (tmp_path / "full").glob("*_best.safetensors")
    assert path.name == other.name


def test_the_optimizer_learns(flags, tmp_path):
    """Colours are easy: what was at chance ends near certainty."""
    run_here("train", *flags(tmp_path, "full", "--optimizer", "AdamW", "--lr", "3e-3", "--nepochs", 6)).succeeded()
    done = record(tmp_path)
    assert done["epochs"][-1]["loss"] < 0.3 < done["epochs"][0]["loss"]
    assert done["best_val_accuracy"] >= 0.8


def test_bf16_on_the_cpu(flags, tmp_path):
    run_here("train", *flags(tmp_path, "lora", "--precision", "bf16")).succeeded()
    assert {tensor.dtype for tensor in checkpoints(tmp_path).values()} == {torch.float32}
    assert record(tmp_path)["settings"]["precision"] == "bf16"
    assert all("bf16" in path.name for path in tmp_path.iterdir())


# --- trackers ------------------------------------------------------------------------------------------------------


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_tensorboard_gets_loss_and_accuracy_of_each_epoch_in_a_folder_for_each_run(flags, tmp_path):
    for seed in (0, 1):
        run_here("train", *flags(tmp_path, "bias", "--log-with", "tensorboard", "--seed", seed)).succeeded()
    for path in tmp_path.glob("*_run.json"):
        done, logged = json.loads(path.read_text()), events(path.with_name(path.name.removesuffix("_run.json")))
        assert logged["loss"] == [(entry["epoch"], pytest.approx(entry["loss"], rel=1e-6)) for entry in done["epochs"]]
        assert logged["val_accuracy"] == [(entry["epoch"], pytest.approx(entry["val_accuracy"])) for entry in done["epochs"]]
        assert logged["lr"] == [(1, pytest.approx(0.01)), (2, pytest.approx(0.01))]


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(flags, tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else real(name, *rest))
    refused: Ended = run_here("train", *flags(tmp_path / "ckpts", "lora", "--log-with", "wandb"))
    refused.refused("--log-with wandb needs the package of that name", "pip install wandb")
    assert not (tmp_path / "ckpts").exists()
