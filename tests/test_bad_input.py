"""A user's mistake: exit status 2, one line on stderr that names the thing, no traceback, and nothing left half-written."""

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.loading import load_encoder
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import files_below, run_here, run_script, write_images, write_model

COMMANDS = ("train", "test", "get_embeddings")


@pytest.fixture
def flags(small_model, image_folder, tmp_path) -> Callable[..., list[object]]:
    """A function: flags with which a command succeeds, to which those under test are added; the last one of a kind counts."""
    name = f"imagefolder:{image_folder}"

    def make(command: str, *more: object, model: object = small_model) -> list[object]:
        chosen = [] if model is None else ["--model-name", model]
        common = [*chosen, "--num-workers", 0, "--device", "cpu"]
        own = {
            "train": ["--dataset", name, "--model-dir", tmp_path / "out", "--nepochs", 1, "--val-p", 0.2],
            "test": ["--eval-datasets", name, "--outfile", tmp_path / "out/results.csv"],
            "get_embeddings": ["--datasets", name, "--split", "test", "--outfolder", tmp_path / "out"],
        }
        return [*common, *own[command], *more]

    return make


@pytest.fixture
def refused(flags, tmp_path) -> Callable[..., str]:
    """A function: run a command with mistaken flags, make sure that it is refused as it should be, give the sentence."""

    def run(command: str, *more: object, named: Sequence[object] = (), **how: object) -> str:
        before = files_below(tmp_path)
        sentence = run_here(command, *flags(command, *more, **how)).refused(*named)
        assert files_below(tmp_path) == before
        return sentence

    return run


def dataset(command: str, *names: object) -> list[object]:
    flag = {"train": "--dataset", "test": "--eval-datasets", "get_embeddings": "--datasets"}[command]
    return [flag, *names]


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_data_set(refused, command):
    refused(command, *dataset(command, "Shapes-Colour"), named=["'Shapes-Colour'", "'Shapes-Color'"])


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_an_unknown_data_set_behind_a_known_one_is_told_before_any_work(refused, command):
    refused(command, *dataset(command, "Digits", "Digit"), named=["'Digit'", "'Digits'"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("model", "nearest"), [("tinny", "'tiny'"), ("ViT-B-32/opnai", "'openai'"), ("ViT-B-32", "'ViT-B-32/")])
def test_an_unknown_model(refused, command, model, nearest):
    refused(command, model=model, named=[f"'{model.split('/')[-1]}'", nearest])


def test_an_unknown_base_model(refused):
    refused("train", "--base-model", "sigllip", model="lora", named=["'sigllip'", "'siglip'"])


def test_a_tuning_of_an_encoder_that_is_named_too(refused):
    refused("train", "--base-model", "clip", model="tiny", named=["tiny", "--base-model clip"])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag(refused, command):
    refused(command, "--num-wokers", 3, named=["--num-wokers", "'--num-workers'"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_flag(command):
    run_here(command).refused({"train": "--dataset", "test": "--eval-datasets", "get_embeddings": "--datasets"}[command])


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[
            ("--lr", "nan"),
            ("--lr", "-1"),
            ("--lr", "inf"),
            ("--lr", "1e38"),
            ("--wd", "nan"),
            ("--bs", "0"),
            ("--nepochs", "0"),
            ("--val-p", "1.5"),
        ],
        *[("--val-p", "0"), ("--val-p", "nan"), ("--accumulate", "0"), ("--seed", "-1"), ("--rank", "0"), ("--optimizer", "Lion")],
        *[("--num-workers", "-1"), ("--max-skipped", "some"), ("--precision", "fp8"), ("--lora-scale", "nan"), ("--clip-norm", "nan")],
    ],
)
def test_a_value_out_of_range(refused, flag, value):
    refused("train", flag, value, named=[flag, value])


def test_an_adapter_ratio_above_one(refused):
    refused("train", "--adapter-ratio", 1.5, model="adapter", named=["--adapter-ratio", "1.5"])


def test_resume_and_overwrite_contradict_each_other(refused):
    refused("train", "--resume", "--overwrite", named=["--resume", "--overwrite"])


@pytest.mark.parametrize("value", ["0.001", "0.999"])
def test_a_validation_part_without_an_image_or_with_all_of_them(refused, value):
    refused("train", "--val-p", value, named=["--val-p", value, "24 training images"])


@pytest.mark.parametrize("command", COMMANDS)
def test_fp16_on_the_cpu(refused, command):
    refused(command, "--precision", "fp16", named=["--precision fp16", "CUDA"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no CUDA device")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_is_not_there(refused, command):
    refused(command, "--device", "cuda", named=["--device cuda"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_template_without_a_place_for_the_class(refused, command):
    refused(command, "--template", "a photo", named=["'a photo'", "{c}"])


def test_a_learning_rate_at_which_training_diverges(flags, tmp_path):
    ended = run_here("train", *flags("train", "--lr", "1e20", "--optimizer", "AdamW", "--bs", 4))
    assert "at learning rate 1e+20" in ended.refused("The loss became", "step ", "--lr")
    assert files_below(tmp_path) == {}


# --- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_folders_that_are_no_data_set(refused, command, tmp_path):
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "single", 3, colors=["red"])
    refused(command, *dataset(command, f"imagefolder:{tmp_path / 'empty'}"), named=[tmp_path / "empty", "no class folders"])
    refused(command, *dataset(command, f"imagefolder:{tmp_path / 'single'}"), named=[tmp_path / "single", "only one class folder, 'red'"])
    refused(command, *dataset(command, f"imagefolder:{tmp_path / 'absent'}"), named=[tmp_path / "absent", "missing"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_image(refused, command, num_workers, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "data")
    for path in (tmp_path / "data").glob("*/red/0[0-3].*"):
        path.write_bytes(path.read_bytes()[:200])
    how = [*dataset(command, f"imagefolder:{tmp_path / 'data'}"), "--num-workers", num_workers]
    refused(command, *how, named=["unreadable", "--max-skipped 0", "/red/0"])


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(small_model, tmp_path):
    """A function that writes an untrained checkpoint of a tuning."""

    def make(tuning: str, model: object = small_model) -> Path:
        encoder = load_encoder(str(model))
        base, options = base_sha256(encoder), TuningOptions(rank=3)
        apply_tuning(encoder, tuning, options, classnames=("blue", "green", "red"))
        path = tmp_path / f"{tuning}_best.safetensors"
        save_checkpoint(path, encoder, make_header(encoder, tuning, options, base, classnames=("blue", "green", "red")))
        return path

    return make


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_flags_that_contradict_the_checkpoint(refused, checkpoint, command):
    path = checkpoint("lora")
    refused(command, "--model-path", path, model="tiny", named=["'tiny'", path])
    refused(command, "--model-path", path, model="adapter", named=["'adapter'", path])
    refused(command, "--model-path", path, "--rank", 4, model=None, named=["--rank 4", path])
    refused(command, "--model-path", path, "--reduction", 4, model=None, named=["--reduction", path])


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_a_checkpoint_of_other_base_weights(refused, checkpoint, tmp_path, command):
    model = write_model(tmp_path / "model")
    path = checkpoint("lora", model)
    shutil.rmtree(model)
    write_model(model, seed=1)
    refused(command, "--model-path", path, model=None, named=["base weights", path])


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_files_that_are_no_checkpoint(refused, checkpoint, tmp_path, command):
    whole = checkpoint("lora")
    cut, absent, foreign = (tmp_path / f"{name}.safetensors" for name in ("cut", "absent", "foreign"))
    cut.write_bytes(whole.read_bytes()[:-100])
    save_file({"a": torch.zeros(3)}, foreign)
    refused(command, "--model-path", cut, model=None, named=[cut, "truncated or damaged"])
    refused(command, "--model-path", absent, model=None, named=[f"No such file: '{absent}'"])
    refused(command, "--model-path", foreign, model=None, named=[foreign, "--model-name"])
    refused(command, "--model-path", foreign, named=[foreign, "does not fit"])
    refused(command, "--model-path", tmp_path, model=None, named=[tmp_path, "is a folder"])


class Malicious:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(Malicious.target),)

    target = Path()


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_a_pickle_that_holds_code_is_refused_unread(refused, tmp_path, command):
    Malicious.target = tmp_path / "harm"
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"weight": Malicious()}))
    refused(command, "--model-path", path, named=[path])
    refused(command, "--model-path", path, model=None, named=[path])
    assert not Malicious.target.exists()


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_a_tuning_without_a_checkpoint(refused, command):
    refused(command, model="probe", named=["'probe' is a tuning", "--model-path"])


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_a_tunings_flag_without_a_checkpoint(refused, command):
    refused(command, "--rank", 4, named=["--rank", "--model-path"])


def test_a_probe_on_another_data_set(refused, checkpoint):
    refused("test", "--model-path", checkpoint("probe"), *dataset("test", "Digits"), model=None, named=["3 classes", "Digits"])


def test_a_probe_on_another_data_set_behind_its_own_is_told_before_any_work(refused, checkpoint, image_folder):
    names = [f"imagefolder:{image_folder}", "Digits"]
    refused("test", "--model-path", checkpoint("probe"), *dataset("test", *names), model=None, named=["Digits"])


@pytest.mark.parametrize("command", ["test", "get_embeddings"])
def test_weights_that_have_diverged(refused, checkpoint, command, small_model, tmp_path):
    encoder = load_encoder(str(small_model))
    base = base_sha256(encoder)
    apply_tuning(encoder, "full", TuningOptions())
    encoder.model.visual.proj.data[:] = float("nan")
    path = tmp_path / "diverged.safetensors"
    save_checkpoint(path, encoder, make_header(encoder, "full", TuningOptions(), base))
    refused(command, "--model-path", path, model=None, named=["not finite", "diverged"])


# --- output --------------------------------------------------------------------------------------------------------


def output(command: str, place: Path) -> list[object]:
    """Flags that send a command's output there."""
    return {"train": ["--model-dir", place], "test": ["--outfile", place / "r.csv"], "get_embeddings": ["--outfolder", place]}[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_folder_below_a_file(refused, command, tmp_path):
    (tmp_path / "file").write_text("here already")
    refused(command, *output(command, tmp_path / "file" / "deeper"), named=["Cannot create the output folder", tmp_path / "file"])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_folder_that_may_not_be_written_to(refused, command, tmp_path, monkeypatch):
    """os.access is asked; who runs the tests may be root, whom no mode of a folder stops."""
    (tmp_path / "locked").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: "locked" not in str(path) and real(path, mode, **more))
    refused(command, *output(command, tmp_path / "locked"), named=["is not writable", tmp_path / "locked"])


def test_a_table_that_cannot_be_added_to(refused, tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1\n")
    refused("test", "--outfile", tmp_path / "r.csv", named=[tmp_path / "r.csv"])
    refused("test", "--outfile", tmp_path, named=["is a folder", tmp_path])


# --- as users see it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "more", "named"),
    [
        ("train", ["--model-name", "lora", "--base-model", "tinny"], "'tiny'"),
        ("test", ["--model-name", "tiny", "--bs", "nought"], "argument --bs/--batch-size: 'nought' is not a whole number"),
        ("get_embeddings", ["--model-name", "tiny", "--precision", "fp16", "--device", "cpu"], "--precision fp16"),
    ],
)
def test_nothing_else_stands_on_stderr_in_a_process_of_its_own(command, more, named, tmp_path):
    ended = run_script(command, *dataset(command, "Digits"), *more, *output(command, tmp_path / "out"))
    assert ended.refused(named).startswith(f"{command}.py: error: ")
    assert ended.stdout == ""
    assert files_below(tmp_path) == {}
