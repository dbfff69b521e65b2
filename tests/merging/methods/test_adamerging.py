"""AdaMerging: its gradient and its steps against plain autograd, what it does to the entropy, its files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.runtime import start as start_runtime
from merging.adaptation import entropy
from merging.coefficients import Columns
from merging.data import LazyHeads, MergeData
from merging.methods import adamerging
from merging.methods.adamerging import METHODS, adapt, gradient
from merging.options import MergeOptions
from merging.table import METHODS as TABLE
from models.loading import load_encoder
from tests.merging.small_data import merge_data, moved_models
from tests.merging.small_objective import Objective, coefficients, loss_on, merged_by_hand, task_vectors

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
KINDS = {"task_wise": Columns.task_wise, "layer_wise": Columns.layer_wise}
TASK_WISE, LAYER_WISE = METHODS
WITHOUT_EFFECT = "in_proj_bias[k]"  # adds the same to all attention logits of a query: its gradient is rounding, of which Adam makes steps
FEW = MergeOptions(adapt_steps=3, adapt_lr=0.05, adapt_batch_size=5)


@pytest.fixture
def data(small_model, image_folder):
    return merge_data(small_model, image_folder)


def merged(method, pool, options, data):
    merge = method.start_with_data(pool, options, data)
    return {name: merge(name) for name in pool.merged}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clamp", [False, True])
def test_the_gradient_is_that_of_autograd_through_the_merge(kind, clamp):
    vectors, loss = task_vectors(KINDS[kind]), loss_on(0)
    by = coefficients(vectors).requires_grad_()
    expected = loss(merged_by_hand(vectors, by.clamp(0, 1) if clamp else by))
    expected.backward()
    value, found = gradient(Objective(loss), vectors, by.detach(), clamp)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(found, by.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clamp", [False, True])
def test_steps_are_those_of_adam_through_the_merge(kind, clamp):
    losses = [loss_on(seed) for seed in range(6)]
    vectors = task_vectors(KINDS[kind])
    found, values = adapt(Objective(*losses), vectors, MergeOptions(adapt_steps=6, adapt_lr=0.2, clamp=clamp), "test", progress=False)
    by = torch.full_like(found, 0.3).requires_grad_()
    optimizer = torch.optim.Adam([by], lr=0.2)
    for loss, value in zip(losses, values, strict=True):
        optimizer.zero_grad()
        plain = loss(merged_by_hand(vectors, by.clamp(0, 1) if clamp else by))
        plain.backward()
        optimizer.step()
        assert value == pytest.approx(plain.item(), rel=1e-9)
    torch.testing.assert_close(found, by.detach().clamp(0, 1) if clamp else by.detach(), rtol=1e-7, atol=1e-9)
    assert not clamp or (found.min() >= 0 and found.max() <= 1)


def plain_adamerging(data, pool, columns, steps, lr, batch_size):
    """λ after some steps, by one graph over the merge and all tasks."""
    by = torch.full((len(pool.models), len(columns.names)), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam([by], lr=lr)
    batches = {model.name: data.endless(model.name, batch_size) for model in pool.models}
    vectors = adamerging.TaskVectors.of(pool, columns, data.device)
    for _ in range(steps):
        optimizer.zero_grad()
        tower = {name.removeprefix("visual."): tensor for name, tensor in merged_by_hand(vectors, by).items()}
        for model, of_model in batches.items():
            z = F.normalize(torch.func.functional_call(data.encoder.image_tower, tower, next(of_model)), dim=1)
            entropy(data.encoder.logit_scale.exp() * z @ data.heads[model].clone().T).backward(retain_graph=True)
        optimizer.step()
    return by.detach()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_learning_is_that_of_one_graph_over_everything(method, data):
    pool = moved_models(data.encoder)
    columns = KINDS[method.name.removesuffix("_adamerging")](pool.merged)
    expected = plain_adamerging(data, pool, columns, 3, 0.05, 5)
    found = adamerging.learn(pool, columns, FEW, data, method.name)
    told = [not column.endswith(WITHOUT_EFFECT) for column in columns.names]
    torch.testing.assert_close(found.coefficients[:, told], expected[:, told], rtol=1e-3, atol=1e-4)
    assert len(found.entropies) == 2


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_without_a_step_it_is_task_arithmetic(method, scaling, data):
    pool = moved_models(data.encoder)
    found = merged(method, pool, MergeOptions(adapt_steps=0, scaling=scaling), data)
    expected = TABLE["task_arithmetic"].start(pool, MergeOptions(scaling=scaling))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected(name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_it_depends_on_the_seed_and_nothing_else(method, data):
    pool = moved_models(data.encoder)
    first, again, other = (merged(method, pool, FEW, replace(data, seed=seed)) for seed in (0, 0, 1))
    turned = merged(method, replace(pool, models=pool.models[::-1]), FEW, data)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.allclose(first[name], turned[name], atol=1e-4) for name in first if not name.endswith("in_proj_bias"))
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_file_of_what_was_learnt_gives_the_same_merge_without_images(data, tmp_path):
    pool, path = moved_models(data.encoder), tmp_path / "learnt.safetensors"
    found = merged(LAYER_WISE, pool, replace(FEW, save_weights=str(path)), data)
    again = LAYER_WISE.start(pool, MergeOptions(weights_file=str(path)))
    nothing = replace(data, tasks={}, heads={})
    by_data = LAYER_WISE.start_with_data(pool, MergeOptions(weights_file=str(path)), nothing)
    for name, tensor in found.items():
        assert torch.equal(again(name), tensor)
        assert torch.equal(by_data(name), tensor)
    for contradiction in ({"scaling": 0.4}, {"save_weights": str(tmp_path / "other.safetensors")}):
        with pytest.raises(UserError, match="leave --scaling and --save-weights out"):
            LAYER_WISE.start(pool, MergeOptions(weights_file=str(path), **contradiction))
    with pytest.raises(UserError, match="learnt by layer_wise_adamerging"):
        TASK_WISE.start(pool, MergeOptions(weights_file=str(path)))
    with pytest.raises(UserError, match="exists"):
        merged(LAYER_WISE, pool, replace(FEW, save_weights=str(path)), data)


def test_without_images_it_says_so(data):
    with pytest.raises(UserError, match="looks at images"):
        LAYER_WISE.start(moved_models(data.encoder), MergeOptions())


def test_a_text_tower_is_refused(data):
    pool = replace(moved_models(data.encoder), merged=("visual.conv1.weight", "token_embedding.weight"))
    with pytest.raises(UserError, match="--towers both"):
        LAYER_WISE.start_with_data(pool, MergeOptions(), data)


def test_half_the_memory_gives_nearly_the_same(data):
    pool = moved_models(data.encoder)
    full, half = (merged(TASK_WISE, pool, replace(FEW, bf16_task_vectors=bf16), data) for bf16 in (False, True))
    for name, tensor in full.items():
        torch.testing.assert_close(half[name], tensor, rtol=0, atol=5e-3)


def test_the_entropy_of_the_embedded_model_falls_on_drawn_tasks():
    encoder = load_encoder("tiny")
    tasks = {name: load_task(name, "test").subset(np.arange(8)) for name in ("Shapes-Color", "Glyphs-Digits")}
    data = MergeData(start_runtime("cpu"), encoder, tasks, LazyHeads(encoder, tasks), LoadOptions(num_workers=0))
    options = MergeOptions(adapt_steps=5, adapt_lr=0.03, adapt_batch_size=8)
    pool = moved_models(encoder, tuple(tasks), size=0.02)
    entropies = adamerging.learn(pool, Columns.layer_wise(pool.merged), options, data, "test").entropies
    assert entropies[-1] < 0.9 * entropies[0]
