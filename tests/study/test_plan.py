"""What a plan answers about itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from engine.fit import OPTIMIZERS, FitOptions
from models.augment import AUGMENTATIONS
from models.tuning_options import TUNING_NAMES, TuningOptions, all_options_of
from study import plan_keys
from study.plan import FitSetting, Plan, Setting, TuningPlan


def test_a_label_names_what_varies_in_the_grids_order() -> None:
    setting = Setting(TuningOptions(rank=4, lora_mlp=True), FitSetting(lr=1e-3, wd=1e-5), ("rank", "lr", "wd", "lora_mlp"))
    assert setting.label == "r4 lr0.001 wd1e-05 mlp"


def test_a_label_of_the_only_setting_is_its_learning_rate() -> None:
    assert Setting(TuningOptions(), FitSetting(lr=0.5)).label == "lr0.5"


def test_every_key_that_may_vary_has_a_label() -> None:
    values = {"clip_norm": 1.5, "steps": 5}
    for name in plan_keys.FIT_KEYS:
        assert Setting(TuningOptions(), FitSetting(**{name: values[name]} if name in values else {}), (name,)).label
    for name in plan_keys.OPTION_KEYS:
        assert Setting(TuningOptions(), FitSetting(), (name,)).label


def test_labels_of_different_values_differ() -> None:
    pairs = [
        ("lora_mlp", False, True),
        ("lora_scale", 0.2, 0.20000001),
        ("probe_init", "text", "random"),
        ("train_blocks", 1, 11),
        ("towers", "both", "text"),
        ("lora_targets", "q,v", "q,k"),
    ]
    for name, one, other in pairs:
        assert len({Setting(TuningOptions(**{name: value}), FitSetting(), (name,)).label for value in (one, other)}) == 2


def test_values_are_all_that_decides_a_run() -> None:
    setting = Setting(TuningOptions(rank=4, reduction=8), FitSetting(lr=1e-3))
    assert setting.values("lora") == {**dict(FitSetting(lr=1e-3)), "rank": 4, "lora_scale": 0.2, "lora_mlp": False}
    assert setting.values("full") == dict(FitSetting(lr=1e-3))
    assert (setting.value("lr"), setting.value("reduction")) == (1e-3, 8)


def test_a_training_has_the_keys_and_defaults_of_the_training_script() -> None:
    published = FitOptions()
    shared = {item.name for item in fields(FitSetting)} & {item.name for item in fields(FitOptions)}
    assert shared == {"epochs", "steps", "lr", "wd", "optimizer", "beta2", "schedule", "warmup", "clip_norm"}
    assert {name: FitSetting()[name] for name in shared} == {name: getattr(published, name) for name in shared}


def test_what_came_later_is_said_only_where_it_is_not_the_default() -> None:
    assert {*FitSetting().keys()} == {item.name for item in fields(FitSetting)} - {"steps", "beta2"}
    later = dict(FitSetting(steps=9, beta2=0.5))
    assert (later["steps"], later["beta2"]) == (9, 0.5)
    assert "epochs" not in later  # which steps stand in for
    setting = Setting(TuningOptions(towers="vision", lora_targets="q,v,mlp"), FitSetting())
    assert {"towers": "vision", "lora_mlp": True}.items() <= setting.values("lora").items()
    assert "lora_targets" not in setting.values("lora")


def test_the_keys_of_a_plan_are_the_fields_that_they_fill() -> None:
    assert [*plan_keys.FIT_KEYS] == [item.name for item in fields(FitSetting)]
    assert {*plan_keys.OPTION_KEYS} == {item.name for item in fields(TuningOptions)} - {"seed"}
    assert {*plan_keys.OPTION_KEYS} == {name for tuning in TUNING_NAMES for name in all_options_of(tuning)}
    assert {*plan_keys.TOP_KEYS} == {*get_type_hints(Plan)} - {"path"} | {"training"}


def test_names_that_are_written_twice_to_spare_torch_are_the_same() -> None:
    assert tuple(OPTIMIZERS) == plan_keys.OPTIMIZERS
    assert plan_keys.AUGMENTATIONS == AUGMENTATIONS


def test_tunings_other_than_full_are_applied_to_the_tuned_models_only() -> None:
    setting = Setting(TuningOptions(), FitSetting())
    full, lora = TuningPlan("all of it", "full", (setting,)), TuningPlan("lora", "lora", (setting,))
    plan = Plan(
        path=Path("x.toml"), title="x", about="", models=("clip", "siglip"), tasks=("DTD",), eval_tasks=("DTD",), tunings=(full, lora),
        tuned_models=("clip",), measures=("iimm",), components=(), data_dir=Path("data"), prompts=None, val_p=0.1, published=None,
    )  # fmt: skip
    assert plan.tunings_of("clip") == (full, lora)
    assert plan.tunings_of("siglip") == (full,)
