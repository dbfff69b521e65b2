"""Training runs from request to files: names that tell runs apart, runs that stop anywhere and go on, and what they leave."""

import json
import os
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import Interrupted, UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.evaluate import evaluate
from engine.fit import Fit, FitOptions
from engine.runtime import start
from engine.training import RunFiles, TrainRequest, exact, run_name, train
from models.checkpoint import load_checkpoint, read_header
from models.encoder import Encoder
from models.tensors import read_safetensors
from models.tunings import TuningOptions
from tests.helpers import files_below, forget_accelerator, write_model

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def request_of(small_model, image_folder, tmp_path):
    """A function that makes a request for a short run: 19 training images in 5 steps an epoch, 2 epochs."""

    def make(folder="ckpts", tuning="lora", fit=None, batch_size=4, **more):
        return TrainRequest(
            dataset=f"imagefolder:{image_folder}",
            model=str(small_model),
            tuning=tuning,
            options=TuningOptions(rank=2),
            fit=FitOptions(**{"epochs": 2, "lr": 0.01, "save_minutes": 0, **(fit or {})}),
            load=LoadOptions(batch_size, num_workers=0),
            model_dir=tmp_path / folder,
            **{"val_p": 0.2, **more},
        )

    return make


def run(request, seed=0, precision="fp32"):
    forget_accelerator()
    return train(start("cpu", precision, seed), request)


def tensors(files):
    return {kind: read_safetensors(path)[0] for kind, path in (("best", files.best), ("last", files.last))}


def assert_equal(one, other):
    """Bit for bit."""
    for kind, expected in tensors(one).items():
        found = tensors(other)[kind]
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), (kind, name)


# --- names ---------------------------------------------------------------------------------------------------------

REQUEST = TrainRequest("Digits", "tiny", "lora")
OTHER = {
    TrainRequest: {
        **{"dataset": "DTD", "model": "clip", "tuning": "full", "accumulate": 2, "augment": "crop", "val_p": 0.2},
        "templates": ("a {c}",),
    },
    FitOptions: {
        **{"epochs": 3, "steps": 30, "lr": 1e-5, "wd": 0.0, "optimizer": "Adam", "beta2": 0.999},
        **{"schedule": "cosine", "warmup": 5, "clip_norm": 1.0},
    },
    LoadOptions: {"batch_size": 64, "full_decode": True},
}
WITHOUT_EFFECT = {  # on what is trained
    TrainRequest: {"options", "fit", "load", "data_dir", "model_dir", "resume", "overwrite"},
    FitOptions: {"save_minutes", "progress"},
    LoadOptions: {"num_workers", "max_skipped", "progress", "pixel_cache"},
}
TUNING_OPTIONS = [
    *[("lora", "rank", 8), ("lora", "lora_scale", 0.5), ("lora", "lora_mlp", True), ("bias", "train_blocks", 3)],
    *[("full", "towers", "vision"), ("lora", "towers", "text"), ("lora", "lora_targets", "q,k,v"), ("l-lora", "rank", 4)],
    *[("attention", "train_blocks", 3), ("adapter", "reduction", 8), ("adapter", "adapter_ratio", 0.6), ("probe", "probe_init", "text")],
]


def changed(kind, name, value):
    """The request with one field of it, or of its fit or load, changed."""
    if kind is TrainRequest:
        return replace(REQUEST, **{name: value})
    part = "fit" if kind is FitOptions else "load"
    return replace(REQUEST, **{part: replace(getattr(REQUEST, part), **{name: value})})


@pytest.mark.parametrize("kind", OTHER)
def test_every_field_is_known_to_matter_or_not_to(kind):
    """Whoever adds a field must decide whether it belongs in the name."""
    assert {each.name for each in fields(kind)} == {*OTHER[kind], *WITHOUT_EFFECT[kind]}


def test_names_differ_whenever_a_setting_does():
    names = [run_name(REQUEST, "fp32", 0), run_name(REQUEST, "bf16", 0), run_name(REQUEST, "fp32", 1)]
    names += [run_name(changed(kind, name, value), "fp32", 0) for kind in OTHER for name, value in OTHER[kind].items()]
    names += [run_name(replace(REQUEST, tuning=tuning), "fp32", 0) for tuning in ("l-lora", "bias", "attention", "adapter", "probe")]
    for tuning, name, value in TUNING_OPTIONS:
        names.append(run_name(replace(REQUEST, tuning=tuning, options=TuningOptions(**{name: value})), "fp32", 0))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kind", "name", "one", "other"),
    [
        (FitOptions, "lr", 1e-4, 1.0000001e-4),
        (FitOptions, "wd", 0.123456, 0.1234561),
        (FitOptions, "clip_norm", 0.0, None),
        (FitOptions, "clip_norm", 1.0, 1.0000001),
        (TrainRequest, "val_p", 0.1, 0.10000001),
        (TrainRequest, "templates", ("a {c}",), ("a  {c}",)),
        (TrainRequest, "templates", ("a {c}", "b {c}"), ("b {c}", "a {c}")),
    ],
)
def test_values_that_lie_close_together_are_told_apart(kind, name, one, other):
    assert run_name(changed(kind, name, one), "fp32", 0) != run_name(changed(kind, name, other), "fp32", 0)


@pytest.mark.parametrize("number", [1e-6, 1e-4, 0.1, 1.0, 3.0, 1 / 3, 1e22, 123456.789])
def test_numbers_in_names_are_exact(number):
    assert float(exact(number)) == number
    assert not exact(number).endswith(".0")


def test_a_name_as_users_see_it():
    assert run_name(REQUEST, "fp32", 0) == "Digits_tiny_lora-r16-s0.2_SGD_lr1e-06_wd0.0001_bs128_ep30_seed0"


def test_folders_of_the_same_name_are_told_apart(request_of, tmp_path, small_model):
    shutil.copytree(small_model, tmp_path / "other" / small_model.name)
    one = request_of()
    other = replace(one, model=str(tmp_path / "other" / small_model.name))
    assert run_name(one, "fp32", 0) != run_name(other, "fp32", 0)


# --- what a run leaves ---------------------------------------------------------------------------------------------


def test_files_and_record(request_of):
    request = request_of(templates=("a photo of a {c}", "the color {c}"))
    files = run(request, seed=3)
    assert [files.best, files.last, files.record] == files.existing()  # no state of a finished run
    assert sorted(path.name for path in request.model_dir.iterdir()) == sorted(path.name for path in files.existing())
    record = json.loads(files.record.read_text())
    settings = record["settings"]
    assert settings["seed"] == 3
    assert settings["templates"] == ["a photo of a {c}", "the color {c}"]
    assert (settings["rank"], settings["lr"], settings["batch_size"], settings["precision"]) == (2, 0.01, 4, "fp32")
    assert [entry["epoch"] for entry in record["epochs"]] == [1, 2]
    assert record["best_val_accuracy"] == max(entry["val_accuracy"] for entry in record["epochs"])
    assert record["n_skipped"] == 0
    assert {"torch", "open_clip_torch", "clipscope"} <= record["versions"].keys()
    assert record["peak_memory_mib"]["process"] > 0
    best, last = read_header(files.best), read_header(files.last)
    assert (best.epoch, best.val_accuracy) == (record["best_epoch"], record["best_val_accuracy"])
    assert (last.epoch, last.val_accuracy) == (2, record["epochs"][1]["val_accuracy"])
    assert (best.task, best.classnames, best.seed) == (request.dataset, ("blue", "green", "red"), 3)


@pytest.mark.parametrize("tuning", ["full", "lora", "l-lora", "bias", "attention", "adapter", "probe"])
def test_a_checkpoint_has_the_accuracy_that_it_says(request_of, tuning):
    """Of every tuning: loaded anew and tested on the validation part. The base weights that do not train stay as they were."""
    request = request_of(tuning=tuning)
    files = run(request)
    for path in (files.best, files.last):
        encoder, header = load_checkpoint(path)
        val = load_task(request.dataset, "val", val_p=0.2)
        forget_accelerator()
        assert evaluate(start("cpu"), encoder, val, request.load).top1 == header.val_accuracy
    assert json.loads(files.record.read_text())["epochs"][0]["loss"] < 3


def test_the_seed_decides_everything_and_nothing_else_does(request_of):
    """Two runs of one seed are the same bit for bit, whatever ran before; 0 is a seed."""
    one = run(request_of("a"))
    np.random.seed(5)  # noqa: NPY002 - as if other code had drawn
    torch.rand(7)
    assert_equal(one, run(request_of("b")))
    other = run(request_of("c"), seed=1)
    assert not torch.equal(*(next(iter(tensors(files)["last"].values())) for files in (one, other)))


def test_the_validation_part_is_the_same_for_every_seed(request_of):
    listings = {json.loads(run(request_of(), seed=seed).record.read_text())["settings"]["val_listing"] for seed in (0, 1, 2)}
    assert len(listings) == 1


@pytest.mark.parametrize("tuning", ["bias", "adapter"])
def test_frozen_text_is_encoded_once_and_text_that_trains_in_every_step(request_of, monkeypatch, tuning):
    passes, real = [], Encoder.text_features

    def counting(self, tokens):
        if len(tokens) == 3:  # the class prompts
            passes.append(1)
        return real(self, tokens)

    monkeypatch.setattr(Encoder, "text_features", counting)
    run(request_of(tuning=tuning))
    assert len(passes) == {"adapter": 1, "bias": 2 * 5 + 3}[tuning]  # steps, and the validations before, between and after


def test_unreadable_images_are_listed_beside_the_record(request_of, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    damaged = ["train/blue/01.png", "train/red/06.jpg"]
    for name in damaged:
        (tmp_path / "copy" / name).write_bytes(b"")
    request = replace(request_of(), dataset=f"imagefolder:{tmp_path / 'copy'}", load=LoadOptions(4, 0, max_skipped=2))
    files = run(request)
    listed = files.record.with_name(f"{files.record.name}.skipped.txt").read_text()
    assert listed == "".join(f"{name}\tthe file is empty\n" for name in damaged)
    assert json.loads(files.record.read_text())["n_skipped"] == 2


# --- going on ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stop_after(monkeypatch):
    """A function that lets runs receive a signal in the optimizer step of that number, counted from 1 in each attempt."""
    real = Fit._step

    def arrange(number, with_signal=signal.SIGUSR1):
        done = []

        def step(self, *arguments):
            real(self, *arguments)
            done.append(1)
            if len(done) == number:
                os.kill(os.getpid(), with_signal)

        monkeypatch.setattr(Fit, "_step", step)

    yield arrange
    monkeypatch.setattr(Fit, "_step", real)


HOW = [
    *[
        {"tuning": "full", "fit": {"optimizer": "SGD"}},
        {"tuning": "lora", "fit": {"optimizer": "AdamW", "schedule": "cosine", "warmup": 3}},
    ],
    {"tuning": "bias", "fit": {"optimizer": "Adam", "clip_norm": 0.5}, "batch_size": 2, "accumulate": 2},
    *[
        {"tuning": "lora", "augment": "crop-flip", "fit": {"optimizer": "AdamW"}},
        {"tuning": "adapter"},
        {"tuning": "probe", "accumulate": 3},
    ],
]


@pytest.mark.parametrize("how", HOW, ids=lambda how: "-".join(map(str, [how["tuning"], *how.get("fit", {}).values(), *list(how)[1:]])))
def test_a_run_stopped_after_every_step_ends_with_the_weights_of_one_that_was_not(request_of, stop_after, how):
    """Bit for bit, with the losses of the epochs; each attempt does one step."""
    whole = run(request_of("whole", **how))
    request, attempts = request_of("parts", resume=True, **how), 0
    while True:
        stop_after(1)
        attempts += 1
        try:
            parts = run(request)
            break
        except Interrupted as stopped:
            assert "SIGUSR1" in str(stopped)
            assert "--resume" in str(stopped)
    assert attempts >= 2 * (2 if how.get("accumulate") == 3 else 5)
    assert_equal(whole, parts)
    one, other = (json.loads(files.record.read_text()) for files in (whole, parts))
    for entry, again in zip(one["epochs"], other["epochs"], strict=True):
        assert (entry["loss"], entry["val_accuracy"]) == (again["loss"], again["val_accuracy"])
    assert one["best_epoch"] == other["best_epoch"]
    assert one["val_accuracy_before"] == other["val_accuracy_before"]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGUSR1])
def test_what_a_stopped_run_leaves_and_what_it_needs_to_go_on(request_of, stop_after, first):
    stop_after(3, first)
    with pytest.raises(Interrupted, match=f"Stopped by {first.name}; the state is saved"):
        run(request_of())
    (state,) = request_of().model_dir.iterdir()
    assert state.name.endswith("_state.safetensors")
    with pytest.raises(UserError, match=r"state\.safetensors' exists; continue that run with --resume, or start anew with --overwrite"):
        run(request_of())
    files = run(request_of(resume=True))
    assert not state.exists()
    assert len(files.existing()) == 3


def test_a_signal_while_features_are_computed_ends_the_run_too(request_of, monkeypatch, capsys):
    """Nothing is saved then; the same command with --resume begins anew."""
    real = Encoder.image_features

    def signalled(self, pixels):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, pixels)

    monkeypatch.setattr(Encoder, "image_features", signalled)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM; run again with --resume"):
        run(request_of(tuning="adapter"))
    monkeypatch.setattr(Encoder, "image_features", real)
    assert_equal(run(request_of(tuning="adapter", resume=True)), run(request_of("other", tuning="adapter")))


def test_a_finished_run_is_not_redone(request_of, capsys):
    files = run(request_of())
    before = files_below(request_of().model_dir)
    with pytest.raises(UserError, match=r"best\.safetensors' exists; continue that run with --resume, or start anew with --overwrite"):
        run(request_of())
    assert run(request_of(resume=True)) == files
    assert f"finished already: {files.best}" in capsys.readouterr().out
    assert files_below(request_of().model_dir) == before


def test_overwrite_starts_anew(request_of, stop_after):
    whole = run(request_of("other"))
    stop_after(7)
    with pytest.raises(Interrupted):
        run(request_of())
    stop_after(0)
    assert_equal(whole, run(request_of(overwrite=True)))
    assert_equal(whole, run(request_of(overwrite=True)))


def test_a_run_killed_before_its_record_was_written_only_writes_that(request_of, monkeypatch):
    """All steps are done; what is left takes no step."""
    from engine import training

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(request_of())
        patch.undo()
    monkeypatch.setattr(Fit, "_step", killed)
    files = run(request_of(resume=True))
    assert len(json.loads(files.record.read_text())["epochs"]) == 2


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_what_a_killed_attempt_left_half_written_goes(request_of, stop_after, flag):
    """Each is as large as the state. Files of other runs stay."""
    stop_after(3)
    with pytest.raises(Interrupted):
        run(request_of())
    stop_after(0)
    (state,) = request_of().model_dir.iterdir()
    half, other = (state.with_name(f".{name}.abcd_012.tmp") for name in (state.name, "other_state.safetensors"))
    for folder in (half, other):
        folder.mkdir()
        (folder / "new.tmp").write_bytes(b"half")
    run(request_of(**{flag: True}))
    assert (half.exists(), other.exists()) == (False, True)


def test_a_run_goes_on_only_with_its_own_data(request_of, stop_after, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    request = replace(request_of(resume=True), dataset=f"imagefolder:{tmp_path / 'copy'}")
    stop_after(3)
    with pytest.raises(Interrupted):
        run(request)
    shutil.copy(tmp_path / "copy/train/red/00.jpg", tmp_path / "copy/train/red/99.jpg")
    with pytest.raises(
        UserError, match=r"belongs to a run with \w+_listing = .*; use the same flags and data, or start anew with --overwrite"
    ):
        run(request)


def test_a_run_goes_on_only_from_its_own_base_weights(request_of, stop_after, small_model, tmp_path):
    shutil.copytree(small_model, tmp_path / "m")
    request = replace(request_of(resume=True), model=str(tmp_path / "m"))
    stop_after(3)
    with pytest.raises(Interrupted):
        run(request)
    shutil.rmtree(tmp_path / "m")
    write_model(tmp_path / "m", seed=1)
    with pytest.raises(UserError, match="belongs to a run with base_sha256 = "):
        run(request)


def test_a_damaged_state_is_refused_and_overwrite_gets_over_it(request_of, stop_after):
    stop_after(3)
    with pytest.raises(Interrupted):
        run(request_of())
    stop_after(0)
    (state,) = request_of().model_dir.iterdir()
    content = bytearray(state.read_bytes())
    content[-5] ^= 255
    state.write_bytes(content)
    with pytest.raises(UserError, match=r"state\.safetensors' is damaged"):
        run(request_of(resume=True))
    assert len(run(request_of(overwrite=True)).existing()) == 3


def test_resume_without_an_earlier_attempt_is_a_run(request_of):
    """So a batch script can always say it."""
    assert len(run(request_of(resume=True)).existing()) == 3


def test_the_files_of_a_run_share_its_name():
    files = RunFiles.named(Path("ckpts"), "Digits_tiny")
    assert files.best == Path("ckpts/Digits_tiny_best.safetensors")
    assert files.existing() == []
