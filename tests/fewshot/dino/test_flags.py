"""The flags of self-distillation: the released defaults, the published run, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import pytest

from common.cli import Parser
from common.errors import UserError
from fewshot.dino.flags import PUBLISHED, add_arguments, options_of
from fewshot.dino.options import DinoOptions
from tests.helpers import ROOT, load_script, run_here


def parsed(*words: str) -> DinoOptions:
    parser = Parser("")
    add_arguments(parser)
    return options_of(parser.parse_args(list(words)))


def test_the_defaults_are_the_released_ones() -> None:
    """The table of the released code's flags, less what it says of the data, the device and the common optimisation."""
    released = {
        **{"min_lr": 2e-6, "warmup_epochs": 10, "momentum_teacher": 0.9995, "warmup_teacher_temp": 0.04, "teacher_temp": 0.07},
        **{"warmup_teacher_temp_epochs": 50, "weight_decay_end": 0.4, "clip_grad": 0.3, "freeze_last_layer": 1, "out_dim": 65536},
        **{"global_crops_scale": (0.25, 1.0), "local_crops_number": 10, "local_crops_scale": (0.05, 0.25), "optimizer": "adamw"},
    }
    found = parsed()
    assert {name: getattr(found, name) for name in released} == released
    assert found == DinoOptions()


def test_the_published_run_resolves_to_its_numbers(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_adapter.py", "--config", str(ROOT / "configs/adapter/dino_paper.toml")])
    script = load_script("train_adapter")
    args = script.parse_arguments()
    request = script.make_request(args)
    fit, tuning, options = request.fit, request.tuning, request.options
    assert (fit.epochs, fit.batch_size, fit.lr, fit.wd, fit.preprocess) == (10, 120, 8e-4, 0.04, "as-released")
    assert (args.seed, args.precision, tuning.bottleneck, tuning.adapter_scale, tuning.adapter_dropout) == (1, "fp32", 64, 0.1, 0.0)
    expected = DinoOptions(
        warmup_epochs=2, momentum_teacher=0.9998, warmup_teacher_temp_epochs=3, freeze_last_layer=0, freeze_head=True, local_crops_size=96
    )
    assert options == expected
    assert {name: getattr(expected, name) for name in PUBLISHED} == PUBLISHED


def test_what_is_not_typed_is_as_released(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_adapter.py", "--objective", "dino"])
    script = load_script("train_adapter")
    request = script.make_request(script.parse_arguments())
    fit = request.fit
    assert (fit.epochs, fit.batch_size, fit.lr, fit.wd, request.tuning.adapter_scale) == (100, 32, 5e-4, 0.04, 0.1)


def test_released_spellings(monkeypatch) -> None:
    words = (
        "--objective dino --adapter_train --distributed --use_fp16 --restore_checkpoint --output_dir out --data_root sets --batch_size 7"
    )
    words += " --only_val --save_best_last --drop_path_rate 0.2 --global_crops_scale 0.3 0.9 --weight_decay 0.1 --weight_decay_end 0.2"
    words += " --root_vit ~/.cache/clip"
    monkeypatch.setattr(sys, "argv", ["train_adapter.py", *words.split()])
    script = load_script("train_adapter")
    args = script.parse_arguments()
    request = script.make_request(args)
    assert (args.precision, request.resume, request.model_dir, request.data_dir) == ("fp16", True, Path("out"), Path("sets"))
    assert request.options == DinoOptions(freeze_head=True, global_crops_scale=(0.3, 0.9), weight_decay_end=0.2)
    assert (request.fit.wd, request.fit.batch_size) == (0.1, 7)


def test_flags_that_do_not_mean_their_default_change_nothing_else() -> None:
    typed = {"optimizer": "lars", "out_dim": 64, "local_crops_number": 0, "local_crops_size": 32, "clip_grad": 0.0, "teacher_temp": 0.05}
    words = [word for name, value in typed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    found = parsed(*words)
    for field in fields(DinoOptions):
        assert getattr(found, field.name) == typed.get(field.name, field.default)


def test_the_help_has_both_the_default_and_the_published_value() -> None:
    shown = " ".join(run_here("train_adapter", "--help").stdout.split())
    assert "cuts a longer warm-up (default: 10; published run: 2)" in shown
    assert "(default: 0.9995; published run: 0.9998)" in shown
    assert "configs/adapter/dino_paper.toml" in shown


@pytest.mark.parametrize("words", ["--local-crops-scale 0.3 0.1", "--global-crops-scale 0 1", "--global-crops-scale 0.5 1.5"])
def test_scales_that_are_no_range(words: str) -> None:
    with pytest.raises(UserError, match=f"{words} is no range of parts of an image"):
        parsed(*words.split())


@pytest.mark.parametrize("words", ["--teacher-temp 0", "--momentum-teacher 1.1", "--out-dim 0", "--optimizer adam", "--clip-grad -1"])
def test_values_that_are_refused(words: str) -> None:
    with pytest.raises(UserError, match=words.split(maxsplit=1)[0]):
        parsed(*words.split())


def test_a_transformer_of_dino_is_refused() -> None:
    with pytest.raises(UserError, match="--use-dino-transformer trains a transformer of DINO's"):
        parsed("--use-dino-transformer")
