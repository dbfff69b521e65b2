"""Self-distillation: its loss by the double loop over views, the published schedules, one process and two, stopping and going on."""

from __future__ import annotations

import functools
import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from datasets.registry import load_task
from engine.loading import Batch
from engine.runtime import Runtime, start
from fewshot.adapter_loop import sum_gradients
from fewshot.adapter_options import AdapterFit
from fewshot.dino.crops import split_views
from fewshot.dino.head import DinoHead
from fewshot.dino.options import OPTIMIZERS, DinoOptions
from fewshot.dino.positions import image_size
from fewshot.objective import Setting, Step
from fewshot.objectives import dino
from fewshot.objectives.dino import Dino
from fewshot.objectives.table import OBJECTIVES
from models.loading import load_encoder
from models.parallel_adapter import adapter_parameters
from models.tensors import read_safetensors
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import ROOT, run_here

OPTIONS = {"out_dim": 24, "local_crops_number": 3, "freeze_last_layer": 0}


@pytest.fixture
def runtime(fresh_accelerator: None) -> Runtime:
    return start("cpu", "fp32", seed=3)


@pytest.fixture(autouse=True)
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dino, "DinoHead", functools.partial(DinoHead, hidden=16, bottleneck=8))


def objective(runtime: Any, model: Path, images: Path, fit: dict[str, Any] | None = None, dropout: float = 0.0, **options: Any) -> Dino:
    """One whose adapters and head have moved away from their start, the teacher's elsewhere than the student's."""
    encoder = load_encoder(str(model))
    apply_tuning(encoder, "parallel-adapter", TuningOptions(bottleneck=4, adapter_scale=0.5, adapter_dropout=dropout))
    described = AdapterFit(**{"lr": 8e-4, "wd": 0.04, "schedule": "cosine", **(fit or {})})
    task = load_task(f"imagefolder:{images}", "train")
    made = Dino(Setting(runtime, encoder, task, described, DinoOptions(**{**OPTIONS, **options})))
    generator = torch.Generator().manual_seed(4)
    for tensor in (*made.parameters().values(), *made.buffers().values()):
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
    return made


def batch_of(made: Dino, rows: slice = slice(None), images: int = 4) -> Batch:
    length = len(made.transform(Image.new("RGB", (40, 40))))
    pixels = torch.randint(0, 256, (images, length), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(pixels[rows], torch.zeros(images, dtype=torch.int64)[rows], torch.arange(images)[rows])


def step(number: int = 0, images: int = 4, epoch: int = 0, steps: int = 100, per_epoch: int = 10) -> Step:
    return Step(number, steps, epoch, per_epoch, images)


def brute_force(made: Dino, batch: Batch, temperature: float) -> Tensor:
    """Every pair of views by itself, each view of every image through its tower alone."""
    large, small = (made.encoder.preprocess.normalized(views) for views in split_views(batch.pixels, made.sizes))
    views = [*large.chunk(2), *small.chunk(made.sizes.small_views)]

    def outputs(encoder: Any, head: Any, pixels: Tensor) -> Tensor:
        with image_size(encoder, *pixels.shape[-2:]):
            features = torch.cat([encoder.raw_image_features(image[None]) for image in pixels])
        return F.normalize(head.mlp(features)) @ F.normalize(head.last_layer).T

    losses = []
    for i in range(2):
        with torch.no_grad():
            target = ((outputs(made.teacher.encoder, made.teacher.head, views[i]) - made.centre) / temperature).softmax(dim=1)
        for v, view in enumerate(views):
            if v != i:
                student = outputs(made.encoder, made.head, view)
                losses.append(-(target * F.log_softmax(student / 0.1, dim=1)).sum(dim=1).mean())
    assert len(losses) == 2 * len(views) - 2
    return torch.stack(losses).mean()


def gradients(made: Dino, loss: Tensor) -> dict[str, Tensor]:
    parameters = made.parameters()
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def test_the_loss_is_the_double_loop_over_views(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, warmup_teacher_temp_epochs=3)
    assert made.sizes.small == 16
    batch = batch_of(made)
    expected = brute_force(made, batch, 0.055)  # before the centre moves
    loss = made.loss(batch, step(epoch=1))
    torch.testing.assert_close(loss, expected)
    found, wanted = gradients(made, loss), gradients(made, expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.any(), name


def test_the_centre_moves_to_the_mean_of_the_teachers_outputs(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder)
    batch, before = batch_of(made), made.centre.clone()
    with torch.no_grad():
        large = made.encoder.preprocess.normalized(split_views(batch.pixels, made.sizes)[0])
        outputs = made.teacher.head(made.teacher.encoder.raw_image_features(large)) @ made.teacher.head.prototypes().T
    made.loss(batch, step())
    torch.testing.assert_close(made.centre, 0.9 * before + 0.1 * outputs.mean(dim=0))


def test_rate_and_decay_of_the_published_run(runtime, small_model, image_folder) -> None:
    """120 images a step, 8e-4 for 256: the peak is 3.75e-4, after 2 epochs of 10; the decay goes from .04 to .4 over all steps."""
    made = objective(runtime, small_model, image_folder, warmup_epochs=2)
    optimizer = made.optimizer()
    decaying, plain = optimizer.param_groups
    seen = {}
    for number in range(100):
        made.before_step(step(number, images=120), optimizer)
        assert decaying["lr"] == plain["lr"] and plain["weight_decay"] == 0
        seen[number] = decaying["lr"], decaying["weight_decay"]
    rates = [rate for rate, _ in seen.values()]
    assert (rates[0], rates[19], rates[20], max(rates)) == pytest.approx((0, 3.75e-4, 3.75e-4, 3.75e-4))
    assert rates[60] == pytest.approx((3.75e-4 + 2e-6) / 2)
    assert (seen[0][1], seen[50][1]) == pytest.approx((0.04, 0.22))


def test_the_teacher_follows_more_slowly_towards_the_end(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, momentum_teacher=0.9)
    for number, momentum in ((0, 0.9), (50, 0.95)):
        before = {name: tensor.clone() for name, tensor in made.teacher.buffers().items()}
        made.after_step(step(number))
        name, student = next(iter(adapter_parameters(made.encoder).items()))
        expected = momentum * before[f"teacher/{name}"] + (1 - momentum) * student
        torch.testing.assert_close(made.teacher.buffers()[f"teacher/{name}"], expected)


def test_the_last_layer_waits(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, freeze_last_layer=1)
    for epoch in range(2):
        made.loss(batch_of(made), step(epoch=epoch)).backward()
        assert (made.head.last_layer.grad is None) == (epoch == 0)
        assert made.head.mlp[0].weight.grad is not None


def test_a_frozen_head_is_no_part_of_what_trains(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, freeze_head=True)
    assert made.parameters().keys() == adapter_parameters(made.encoder).keys()
    made.loss(batch_of(made), step()).backward()
    assert all(parameter.grad is None for parameter in made.head.parameters())
    assert all(parameter.grad is not None for parameter in made.parameters().values())


def test_it_starts_where_the_seed_says(runtime, small_model, image_folder) -> None:
    one, other = (objective(runtime, small_model, image_folder).parameters() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_clipping_is_by_parameter_and_can_be_left_out(runtime, small_model, image_folder) -> None:
    for largest in (1e-3, 0.0):
        made = objective(runtime, small_model, image_folder, clip_grad=largest)
        made.loss(batch_of(made), step()).backward()
        before = {name: parameter.grad.norm().item() for name, parameter in made.parameters().items()}  # type: ignore[union-attr]
        made.after_backward(step())
        for name, parameter in made.parameters().items():
            expected = min(1e-3, before[name]) if largest else before[name]
            assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-2)  # type: ignore[union-attr]


def test_released_adapters_saw_the_statistics_of_imagenet(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, fit={"preprocess": "as-released"})
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(made.preprocess.normalized(pixels)[0, :, 0, 0], expected)
    own = objective(runtime, small_model, image_folder)
    torch.testing.assert_close(own.preprocess.mean, own.encoder.preprocess.mean)


def test_dropout_only_where_it_is_asked_for(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, dropout=0.5)
    batch = batch_of(made)
    losses = []
    for number in (0, 0, 1):
        made.centre.zero_()
        losses.append(made.loss(batch, step(number)).item())
    assert losses[0] == losses[1] != losses[2]
    assert (OBJECTIVES["dino"].adapter_dropout, OBJECTIVES["dino"].adapter_scale) == (0.0, 0.1)


def test_without_small_views(runtime, small_model, image_folder) -> None:
    made = objective(runtime, small_model, image_folder, local_crops_number=0)
    assert made.loss(batch_of(made), step()).isfinite()


def test_in_half_precision_it_is_nearly_the_same(runtime, small_model, image_folder) -> None:
    """And every parameter has its gradient: what autocast keeps of the teacher's pass must not serve the student's."""
    losses = []
    for enabled in (False, True):
        made = objective(runtime, small_model, image_folder)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = made.loss(batch_of(made), step())
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.parameters().values())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("fit", [{"schedule": "linear"}, {"warmup": 3}])
def test_it_has_a_schedule_of_its_own(runtime, small_model, image_folder, fit) -> None:
    with pytest.raises(UserError, match="leave --schedule and --warmup out"):
        objective(runtime, small_model, image_folder, fit)


# --- processes -------------------------------------------------------------------------------------------------------


def trained(runtime: Any, model: Path, images: Path) -> dict[str, Tensor]:
    """Everything that changes, after three steps of five images: of two processes the first has three of them."""
    made = objective(runtime, model, images, fit={"lr": 1.0}, optimizer="sgd", warmup_epochs=0, momentum_teacher=0.5)
    optimizer, losses = made.optimizer(), []
    for number in range(3):
        at = step(number, images=5)
        made.before_step(at, optimizer)
        loss = made.loss(batch_of(made, slice(runtime.rank, None, runtime.world), images=5), at)
        loss.backward()
        sum_gradients(runtime, list(made.parameters().values()))
        made.after_backward(at)
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(at)
        losses.append(runtime.total(loss.detach()))
    parameters = {name: parameter.detach() for name, parameter in made.parameters().items()}
    return {**parameters, **made.buffers(), "losses": torch.stack(losses)}


def of_one_process(rank: int, world: int, model: Path, images: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)

    def total(values: Tensor) -> Tensor:
        torch.distributed.all_reduce(values)
        return values

    runtime = SimpleNamespace(device=torch.device("cpu"), seed=3, rank=rank, world=world, total=total)
    torch.save(trained(runtime, model, images), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(runtime, small_model, image_folder, tmp_path) -> None:
    """Losses, centre, student and teacher."""
    torch.multiprocessing.start_processes(of_one_process, (2, small_model, image_folder, tmp_path), 2, start_method="fork")
    expected = trained(runtime, small_model, image_folder)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


# --- the whole run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def flags(small_model, image_folder):
    """A function: the flags of a short run on the coloured images."""

    def make(model_dir: Path, *more: object) -> list[object]:
        data = ["--dataset", f"imagefolder:{image_folder}", "--model-name", small_model, "--model-dir", model_dir, "--val-p", 0.4]
        how = ["--objective", "dino", "--batch-size", 4, "--epochs", 3, "--lr", 0.05, "--warmup-epochs", 1, "--momentum-teacher", 0.5]
        return [*data, *how, "--out-dim", 16, "--local-crops-number", 2, "--num-workers", 0, "--device", "cpu", *more]

    return make


def adapters(folder: Path) -> dict[str, Tensor]:
    (path,) = folder.glob("*_last.safetensors")
    return read_safetensors(path)[0]


def history(folder: Path) -> list[dict[str, float]]:
    (path,) = folder.glob("*_run.json")
    return json.loads(path.read_text())["history"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(flags, tmp_path, monkeypatch, optimizer) -> None:
    """Stopped twice, first in the epoch in which the last layer waits; teacher, centre and momenta are taken up."""
    how = ["--optimizer", optimizer]
    run_here("train_adapter", *flags(tmp_path / "whole", *how)).succeeded()
    plain = Dino.after_step

    def stopped(self: Dino, at: Step) -> None:
        plain(self, at)
        if at.number in (1, 4):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Dino, "after_step", stopped)
    for _ in range(2):
        assert run_here("train_adapter", *flags(tmp_path / "stopped", *how, "--resume")).status == 75
    run_here("train_adapter", *flags(tmp_path / "stopped", *how, "--resume")).succeeded()
    one, other = adapters(tmp_path / "whole"), adapters(tmp_path / "stopped")
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")
    assert any(tensor.any() for name, tensor in one.items() if "up" in name)


def test_loader_processes_do_not_change_the_weights(flags, tmp_path) -> None:
    for number in (0, 2):
        run_here("train_adapter", *flags(tmp_path / str(number), "--num-workers", number, "--epochs", 1)).succeeded()
    one, other = adapters(tmp_path / "0"), adapters(tmp_path / "2")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_checkpoint_holds_the_teachers_adapters(flags, tmp_path, monkeypatch) -> None:
    """Of a teacher that never moves they are the identity still, whatever the student learnt."""
    run_here("train_adapter", *flags(tmp_path, "--momentum-teacher", 1)).succeeded()
    found = adapters(tmp_path)
    assert found and all(".parallel_adapter." in name for name in found)
    assert not any(tensor.any() for name, tensor in found.items() if ".up." in name)


def test_the_run_says_how_it_was_made(flags, tmp_path) -> None:
    run_here("train_adapter", *flags(tmp_path, "--epochs", 1)).succeeded()
    (path,) = tmp_path.glob("*_run.json")
    settings = json.loads(path.read_text())["settings"]
    expected = {
        "objective": "dino",
        "out_dim": 16,
        "local_crops_number": 2,
        "local_crops_size": 16,
        "teacher_temp": 0.07,
        "adapter_scale": 0.1,
    }
    assert {name: settings[name] for name in expected} == expected


def test_other_options_do_not_take_up_the_state(flags, tmp_path, small_model) -> None:
    """They make another run, with another name."""
    run_here("train_adapter", *flags(tmp_path, "--epochs", 1)).succeeded()
    run_here("train_adapter", *flags(tmp_path, "--epochs", 1, "--teacher-temp", 0.05, "--resume")).succeeded()
    assert len(list(tmp_path.glob("*_last.safetensors"))) == 2


def test_the_published_preset_runs(flags, tmp_path) -> None:
    """With a small model, few images, and views and outputs to match."""
    preset = ["--config", ROOT / "configs/adapter/dino_paper.toml", "--local-crops-size", 16, "--freeze-last-layer", 0]
    run_here("train_adapter", *flags(tmp_path, *preset)).succeeded()
    (path,) = tmp_path.glob("*_run.json")
    settings = json.loads(path.read_text())["settings"]
    assert (settings["freeze_head"], settings["preprocess"], settings["seed"]) == (True, "as-released", 1)


def test_small_views_must_be_whole_patches(flags, tmp_path) -> None:
    run_here("train_adapter", *flags(tmp_path, "--local-crops-size", 20)).refused("--local-crops-size 20", "8 pixels")
