"""The supervised objective: its loss by the textbook, its start, and the released preprocessing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from datasets.registry import load_task
from engine.loading import Batch
from engine.runtime import Runtime, start
from fewshot.adapter_options import AdapterFit
from fewshot.objective import Setting, Step
from fewshot.objectives.supervised import Supervised
from models.loading import load_encoder
from models.parallel_adapter import adapter_parameters
from models.tunings import TuningOptions, apply_tuning


@pytest.fixture
def runtime(fresh_accelerator: None) -> Runtime:
    return start("cpu", "fp32", seed=3)


def supervised(runtime: Runtime, model: Path, images: Path, dropout: float = 0.0, **fit: str) -> Supervised:
    encoder = load_encoder(str(model))
    apply_tuning(encoder, "parallel-adapter", TuningOptions(adapter_dropout=dropout))
    return Supervised(Setting(runtime, encoder, load_task(f"imagefolder:{images}", "train"), AdapterFit(**fit)))  # type: ignore[arg-type]


def step(number: int = 0, images: int = 4) -> Step:
    return Step(number, 10, 0, 10, images)


@pytest.fixture
def batch() -> Batch:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(pixels, torch.tensor([0, 1, 2, 1]), torch.tensor([5, 6, 7, 8]))


def test_cross_entropy_of_a_linear_layer_on_features_as_they_are(runtime, small_model, image_folder, batch) -> None:
    objective = supervised(runtime, small_model, image_folder)
    features = objective.encoder.raw_image_features(batch.pixels)
    assert not torch.allclose(features.norm(dim=1), torch.ones(4))
    logits = features @ objective.head.weight.T + objective.head.bias
    torch.testing.assert_close(objective.loss(batch, step()), F.cross_entropy(logits, batch.labels))
    torch.testing.assert_close(objective.loss(batch, step(images=16)), F.cross_entropy(logits, batch.labels) / 4)  # a share of a step


def test_what_trains(runtime, small_model, image_folder) -> None:
    objective = supervised(runtime, small_model, image_folder)
    parameters = objective.parameters()
    assert parameters.keys() == {*adapter_parameters(objective.encoder), "head.weight", "head.bias"}
    assert 0.8 / 32**0.5 < objective.head.weight.abs().max() <= 1 / 32**0.5
    (group,) = objective.optimizer().param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (8e-3, 1e-2, (0.9, 0.999))
    again = supervised(runtime, small_model, image_folder).parameters()
    assert all(torch.equal(parameters[name], again[name]) for name in parameters)


def test_released_adapters_saw_pixels_between_0_and_1(runtime, small_model, image_folder, batch) -> None:
    objective = supervised(runtime, small_model, image_folder, preprocess="as-released")
    expected = objective.encoder.raw_image_features(batch.pixels.float() / 255)
    torch.testing.assert_close(objective.features(batch, step()), expected)
    own = supervised(runtime, small_model, image_folder).features(batch, step())
    assert not torch.allclose(own, expected)
    torch.testing.assert_close(objective.encoder.raw_image_features(batch.pixels), own)  # the encoder keeps its own


def test_dropout_differs_by_step_and_not_by_batch(runtime, small_model, image_folder, batch) -> None:
    objective = supervised(runtime, small_model, image_folder, dropout=0.5)
    for parameter in adapter_parameters(objective.encoder).values():
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    half = Batch(batch.pixels[2:], batch.labels[2:], batch.indices[2:])
    with torch.no_grad():
        whole = objective.features(batch, step())
        torch.testing.assert_close(objective.features(half, step()), whole[2:])
        assert not torch.allclose(objective.features(batch, step(1)), whole)


def test_the_schedule_is_constant_unless_asked(runtime, small_model, image_folder) -> None:
    for schedule, rates in (("constant", [8e-3, 8e-3]), ("linear", [8e-3, 4e-3])):
        objective = supervised(runtime, small_model, image_folder, schedule=schedule)
        optimizer = objective.optimizer()
        for number, rate in zip((0, 5), rates, strict=True):
            objective.before_step(step(number), optimizer)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
