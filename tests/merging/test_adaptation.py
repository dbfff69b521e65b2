"""Entropy and its gradient against plain autograd; the loop that minimises it."""

import shutil
from dataclasses import replace
from math import log

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from engine.loading import SkippedImages
from merging.adaptation import Entropies, entropy, minimise, settled
from merging.methods.adamerging import METHODS
from tests.helpers import forget_accelerator
from tests.merging.small_data import merge_data, moved_models

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def data(small_model, image_folder):
    return merge_data(small_model, image_folder)


def test_entropy_is_its_definition():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    of_images = [sum(-p * log(p + 1e-8) for p in row.tolist()) for row in logits.double().softmax(dim=1)]
    assert entropy(logits).item() == pytest.approx(sum(of_images) / 5, rel=1e-6)


def test_entropy_is_log_c_of_no_idea_and_0_of_certainty():
    assert entropy(torch.zeros(3, 7)).item() == pytest.approx(log(7), rel=1e-6)
    assert entropy(1e4 * torch.eye(3)).item() == pytest.approx(0, abs=1e-6)


def test_entropy_of_half_precision_is_computed_in_float32():
    logits = torch.randn(5, 400)
    assert entropy(logits.bfloat16()).dtype == torch.float32


def plain_entropies(data, pool, merged, steps, batch_size):
    """Loss and gradient of some steps by plain autograd: all tasks' losses in one graph."""
    batches = {model.name: data.endless(model.name, batch_size) for model in pool.models}
    for _ in range(steps):
        leaves = {name: merged(name).clone().requires_grad_() for name in pool.merged}
        own = {name.removeprefix("visual."): leaf for name, leaf in leaves.items()}
        losses = []
        for model, of_model in batches.items():
            z = F.normalize(torch.func.functional_call(data.encoder.image_tower, own, next(of_model)), dim=1)
            logits = data.encoder.logit_scale.exp() * z @ data.heads[model].clone().T
            losses.append(entropy(logits))
        gradients = torch.autograd.grad(sum(losses), list(leaves.values()))
        yield sum(losses).item() / len(losses), dict(zip(leaves, gradients, strict=True))


def test_loss_and_gradient_are_those_of_autograd_batch_after_batch(data):
    pool = moved_models(data.encoder)
    objective = Entropies(data, [model.name for model in pool.models], pool.merged, 5)
    for loss, gradients in plain_entropies(data, pool, pool.models[0].read, 4, 5):
        found, of_tensors = objective(pool.models[0].read)
        assert found == pytest.approx(loss, rel=1e-5)
        assert set(of_tensors) == set(pool.merged)
        for name, gradient in of_tensors.items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_they_are_the_same(data, small_model, image_folder):
    pool = moved_models(data.encoder)
    loss, gradients = Entropies(data, ["first"], pool.merged, 5)(pool.models[0].read)
    forget_accelerator()
    on_gpu = merge_data(small_model, image_folder, device="cuda")
    found, of_tensors = Entropies(on_gpu, ["first"], pool.merged, 5)(pool.models[0].read)
    assert found == pytest.approx(loss, rel=1e-3)
    for name, gradient in of_tensors.items():
        torch.testing.assert_close(gradient.cpu(), gradients[name], rtol=1e-2, atol=1e-3)


def test_the_encoder_stays_as_it_is(data):
    before = {name: tensor.clone() for name, tensor in data.encoder.model.state_dict().items()}
    pool = moved_models(data.encoder)
    Entropies(data, ["first"], pool.merged, 4)(pool.models[0].read)
    for name, tensor in data.encoder.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in data.encoder.parameters())


def test_only_what_is_merged_is_written(data):
    pool = moved_models(data.encoder)
    names = pool.merged[:3]
    objective = Entropies(data, ["first"], names, 4)
    assert set(objective(pool.models[0].read)[1]) == set(names)
    for name, tensor in objective.tower.state_dict().items():
        expected = pool.models[0].read(f"visual.{name}") if f"visual.{name}" in names else data.encoder.image_tower.state_dict()[name]
        assert torch.equal(tensor, expected)


def test_the_seed_decides_the_images(small_model, image_folder):
    def losses(seed):
        data = merge_data(small_model, image_folder, seed=seed)
        pool = moved_models(data.encoder)
        objective = Entropies(data, ["first", "second"], pool.merged, 3)
        return [objective(pool.models[0].read)[0] for _ in range(5)]

    assert losses(0) == losses(0) != losses(1)


def test_fp16_is_refused(data):
    with pytest.raises(UserError, match="fp16"):
        Entropies(replace(data, runtime=replace(data.runtime, precision="fp16")), ["first"], ["visual.conv1.weight"], 4)


def test_a_model_without_a_task_is_told(data):
    with pytest.raises(UserError, match="'third'"):
        Entropies(data, ["third"], ["visual.conv1.weight"], 4)


def test_unreadable_images_are_counted(small_model, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    victim = next((tmp_path / "copy" / "test").glob("*/*.png"))
    victim.write_bytes(b"no image")
    data = merge_data(small_model, tmp_path / "copy")
    objective = Entropies(data, ["first"], ["visual.conv1.weight"], 12)
    with pytest.raises(UserError, match="1 image is unreadable"):
        objective(dict(data.encoder.model.state_dict()).__getitem__)
    lenient = replace(data, load=replace(data.load, max_skipped=1))
    objective = Entropies(lenient, ["first"], ["visual.conv1.weight"], 12)
    assert objective(dict(data.encoder.model.state_dict()).__getitem__)[0] > 0
    assert isinstance(lenient.skipped["first"], SkippedImages)


def test_minimise_takes_its_steps():
    losses = iter(range(10, 0, -1))
    assert minimise(lambda: float(next(losses)), 4, what="test") == [10, 9, 8, 7]
    assert minimise(lambda: 0.0, 0, what="test") == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told(loss):
    losses = iter([1.0, loss])
    with pytest.raises(UserError, match="ties: the entropy is not finite in step 2"):
        minimise(lambda: next(losses), 4, what="ties")


def test_a_plateau_ends_it():
    falling = [1.0 - 0.1 * step for step in range(6)]
    losses = iter(falling + [0.5] * 100)
    assert len(minimise(lambda: next(losses), 100, what="test", plateau=3)) == 12  # 7th to 9th, then the same again
    losses = iter([0.5] * 100)
    assert len(minimise(lambda: next(losses), 100, what="test")) == 100


@pytest.mark.parametrize(
    ("losses", "plateau", "ended"),
    [([1, 1], 1, True), ([1, 0.9], 1, False), ([1, 0.9995], 1, True), ([1, 1], 0, False), ([1, 1, 1], 2, False), ([1, 2, 2, 1], 2, True)],
)
def test_settled(losses, plateau, ended):
    assert settled(losses, plateau) is ended


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_methods_say_that_they_look_at_test_images(method):
    assert method.transductive
    assert "unlabelled" in method.data
