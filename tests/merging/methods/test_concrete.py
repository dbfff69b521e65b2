"""Concrete task arithmetic and AdaMerging: gradients and steps against autograd through masks and merge, final masks, files."""

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from merging.coefficients import Columns, parts_of
from merging.methods import adamerging
from merging.methods.concrete import METHODS, learn_masks, learn_masks_by_adapted, set_gradients, summed_vectors, task_arithmetic
from merging.methods.concrete_mask import Masks
from merging.options import MergeOptions
from merging.table import METHODS as TABLE
from tests.merging.small_data import merge_data, moved_models
from tests.merging.small_objective import SHAPES, Objective, coefficients, loss_on, merged_by_hand, task_vectors

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
KINDS = (Columns.task_wise, Columns.layer_wise)
FEW = MergeOptions(mask_steps=2, adapt_steps=2, adapt_lr=0.05, adapt_batch_size=5)
IDS = {"argvalues": METHODS, "ids": lambda method: method.name}


@pytest.fixture
def data(small_model, image_folder):
    return merge_data(small_model, image_folder)


def noise(generator):
    """What a draw of masks begins with."""
    return {name: torch.rand(shape, dtype=torch.float64, generator=generator) for name, shape in SHAPES.items()}


def masks_by_hand(logits, uniform, temperature):
    """m / mean(m) with a graph behind it."""
    masks = {}
    for name, x in logits.items():
        m = torch.sigmoid((uniform[name].log() - (1 - uniform[name]).log() + x) / temperature)
        masks[name] = torch.cat([(part / part.mean()).reshape(-1) for part in m.reshape(len(parts_of(name)), -1)]).reshape(m.shape)
    return masks


def zeros():
    return {name: torch.zeros(shape, dtype=torch.float64, requires_grad=True) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_the_gradient_of_mask_logits_is_that_of_autograd_through_mask_and_merge(kind, temperature):
    vectors, loss = task_vectors(kind), loss_on(0)
    by, logits = coefficients(vectors), zeros()
    masks = Masks.like(vectors.base, temperature, 0)
    for seed, (name, x) in enumerate(logits.items()):
        x.data = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        masks.logits[name].data = x.data.clone()
    expected = loss(merged_by_hand(vectors, by, masks_by_hand(logits, noise(torch.Generator().manual_seed(0)), temperature)))
    expected.backward()
    value = set_gradients(Objective(loss), vectors, by, masks, masks.draw())
    assert value == pytest.approx(expected.item(), rel=1e-10)
    for name, x in logits.items():
        torch.testing.assert_close(masks.logits[name].grad, x.grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 5])
def test_steps_of_task_arithmetic_are_those_of_adam_through_mask_and_merge(steps):
    vectors, losses = task_vectors(Columns.task_wise, count=1), [loss_on(seed) for seed in range(steps)]
    masks, logits = Masks.like(vectors.base, 0.5, 7), zeros()
    found = learn_masks(Objective(*losses), vectors, masks, replace(FEW, mask_steps=steps), "test", progress=False)
    generator, optimizer = torch.Generator().manual_seed(7), torch.optim.Adam(logits.values(), lr=0.05)
    by = torch.full((1, 1), 0.3, dtype=torch.float64)
    for loss, value in zip(losses, found, strict=True):
        optimizer.zero_grad()
        plain = loss(merged_by_hand(vectors, by, masks_by_hand(logits, noise(generator), 0.5)))
        plain.backward()
        optimizer.step()
        assert value == pytest.approx(plain.item(), rel=1e-8)
    for name, x in logits.items():
        torch.testing.assert_close(masks.logits[name].detach(), x.detach(), rtol=1e-6, atol=1e-8)


def meta_learnt(vectors, losses, steps, released):
    """Mask logits by two nested graphs: λ from the start by a step of Adam at a detached mask, then the logits at the new λ."""
    logits, generator = zeros(), torch.Generator().manual_seed(7)
    by = torch.nn.Parameter(torch.full((3, len(vectors.columns.names)), 0.3, dtype=torch.float64))
    inner, outer = torch.optim.Adam([by], lr=1.0), torch.optim.Adam(logits.values(), lr=0.05)
    values = []
    for step in range(steps):
        uniform = noise(generator)
        detached = {name: mask.detach() for name, mask in masks_by_hand(logits, uniform, 0.5).items()}
        if not released:
            by.data.fill_(0.3)
        merged = merged_by_hand(vectors, by, detached)
        (by.grad,) = torch.autograd.grad(losses[2 * step](merged), by)
        by.data.fill_(0.3)
        inner.step()
        outer.zero_grad()
        loss = losses[2 * step + 1](merged_by_hand(vectors, by.detach(), masks_by_hand(logits, uniform, 0.5)))
        loss.backward()
        outer.step()
        values.append(loss.item())
    return logits, values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("released", [False, True])
def test_meta_learning_is_that_of_nested_steps(kind, released):
    vectors, losses = task_vectors(kind), [loss_on(seed) for seed in range(8)]
    expected, values = meta_learnt(vectors, losses, 4, released)
    masks, options = Masks.like(vectors.base, 0.5, 7), replace(FEW, mask_steps=4, as_released=released)
    found = learn_masks_by_adapted(Objective(*losses), vectors, masks, options, "test", progress=False)
    assert found == pytest.approx(values, rel=1e-7)
    for name, x in expected.items():
        torch.testing.assert_close(masks.logits[name].detach(), x.detach(), rtol=1e-5, atol=1e-7)


def test_the_released_order_starts_alike_and_goes_elsewhere():
    def losses(released):
        vectors, objective = task_vectors(Columns.layer_wise), Objective(*map(loss_on, range(8)))
        options = replace(FEW, mask_steps=3, as_released=released)
        return learn_masks_by_adapted(objective, vectors, Masks.like(vectors.base, 0.5, 0), options, "test", progress=False)

    ours, released = losses(False), losses(True)
    assert ours[0] == released[0]
    assert ours[1] != released[1]


def test_the_summed_task_vector_stands_for_all(data):
    pool = moved_models(data.encoder)
    vectors = summed_vectors(pool, Columns.task_wise(pool.merged), data.device)
    expected = TABLE["task_arithmetic"].start(pool, MergeOptions())
    for name in pool.merged:
        torch.testing.assert_close(vectors.merged(torch.full((1, 1), 0.3), name), expected(name))


def merged(method, pool, options, data):
    merge = method.start_with_data(pool, options, data)
    return {name: merge(name) for name in pool.merged}


@pytest.mark.parametrize("method", **IDS)
@pytest.mark.parametrize("mask_type", ["continuous", "discrete"])
def test_without_a_step_it_is_task_arithmetic(method, mask_type, data):
    pool = moved_models(data.encoder)
    found = merged(method, pool, replace(FEW, mask_steps=0, adapt_steps=0, scaling=0.4, mask_type=mask_type), data)
    expected = TABLE["task_arithmetic"].start(pool, MergeOptions(scaling=0.4))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected(name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mask_type", ["continuous", "discrete"])
def test_the_merge_is_by_the_mask_that_was_learnt(mask_type, data):
    pool = moved_models(data.encoder)
    learnt = task_arithmetic(pool, Columns.task_wise(pool.merged), replace(FEW, mask_type=mask_type), data, "test")
    merge = learnt.merge(pool, Columns.task_wise(pool.merged))
    for name, mask in learnt.masks.items():
        means = mask.reshape(len(parts_of(name)), -1).mean(dim=1)
        torch.testing.assert_close(means, torch.ones_like(means))
        expected = pool.base.read(name) + 0.3 * mask * pool.task_vectors(name).sum(dim=0)
        torch.testing.assert_close(merge(name), expected, rtol=1e-5, atol=1e-6)
    packed = learnt.masks["visual.transformer.resblocks.0.attn.in_proj_weight"]
    assert len(packed[:32].unique()) == 2 if mask_type == "discrete" else len(packed.unique()) > 100


@pytest.mark.parametrize("method", **IDS)
def test_a_file_of_what_was_learnt_gives_the_same_merge_without_images(method, data, tmp_path):
    pool, path = moved_models(data.encoder), str(tmp_path / "learnt.safetensors")
    found = merged(method, pool, replace(FEW, save_weights=path, as_released=True), data)
    again = method.start(pool, MergeOptions(weights_file=path))
    assert all(torch.equal(again(name), tensor) for name, tensor in found.items())
    with pytest.raises(UserError, match="looks at images"):
        method.start(pool, MergeOptions())


@pytest.mark.parametrize("method", **IDS)
@pytest.mark.parametrize("released", [False, True])
def test_the_seed_decides(method, released, data):
    pool, options = moved_models(data.encoder), replace(FEW, as_released=released, mask_steps=1, adapt_steps=1)
    first, again, other = (merged(method, pool, options, replace(data, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_entropy_falls_under_a_mask(data):
    pool = moved_models(data.encoder)
    options = replace(FEW, mask_steps=12, adapt_lr=0.3, adapt_batch_size=12)
    entropies = task_arithmetic(pool, Columns.task_wise(pool.merged), options, data, "test").entropies
    assert entropies[-1] < entropies[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", [*adamerging.METHODS, *METHODS], ids=lambda method: method.name)
def test_all_of_it_runs_on_a_gpu(method, small_model, image_folder):
    data = merge_data(small_model, image_folder, device="cuda")
    pool = moved_models(data.encoder)
    first, again = (merged(method, pool, FEW, data) for _ in range(2))
    for name, tensor in first.items():
        assert tensor.device.type == "cpu"
        torch.testing.assert_close(again[name], tensor, atol=1e-3, rtol=0)
