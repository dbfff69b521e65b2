"""The training loop of few-shot methods: its rates, its first step, its batches."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from fewshot.learning import Learner, Recipe, learn


def test_rates_of_a_cosine_per_step_are_those_of_torch():
    recipe, parameter = Recipe(lr=2e-4, batch_size=1, least_lr=1e-6), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=1e-6)
    for step in range(50):
        assert recipe.rate(step, 50, 7) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_rates_by_epoch_with_a_first_one_of_its_own():
    recipe = Recipe(lr=0.5, batch_size=1, by_epoch=True, first_lr=0.125)
    rates = [recipe.rate(step, 8, 2) for step in range(8)]
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx([0.125, 0.125, *(rate for rate in expected[1:] for _ in range(2))])


@pytest.mark.parametrize("images", [1, 5, 64, 67])
def test_every_epoch_has_every_image_once(images):
    seen = []
    parameter = torch.zeros(1)

    def loss(rows):
        seen.append(rows)
        return parameter.sum()

    recipe = Recipe(lr=0.1, batch_size=32, epochs=3)
    facts = learn([parameter], loss, images, recipe, seed=0)
    assert facts["steps"] == 3 * -(-images // 32) == len(seen)
    for epoch in torch.cat(seen).split(images):
        assert sorted(epoch.tolist()) == list(range(images))


def test_a_first_step_of_adamw_by_hand():
    weight = torch.tensor([[0.5, -0.2], [0.1, 0.3]])
    rows, labels, before = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0, 1]), weight.clone()
    logits = rows @ before.T
    gradient = (logits.softmax(dim=1) - F.one_hot(labels, 2)).T @ rows / 2
    recipe = Recipe(lr=0.1, batch_size=8, epochs=1, eps=1e-4, wd=0.2)
    learn([weight], lambda batch: F.cross_entropy(rows[batch] @ weight.T, labels[batch]), 2, recipe, seed=0)
    expected = before * (1 - 0.1 * 0.2) - 0.1 * gradient / (gradient.abs() + 1e-4)
    torch.testing.assert_close(weight, expected)
    assert not weight.requires_grad


def test_the_seed_decides():
    def trained(seed):
        weight, rows = torch.zeros(2, 3), torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(9) % 2
        recipe = Recipe(lr=0.1, batch_size=2, epochs=2)
        learn([weight], lambda batch: F.cross_entropy(rows[batch] @ weight.T, labels[batch]), 9, recipe, seed)
        return weight

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_steps_end_in_the_middle_of_an_epoch():
    parameter = torch.zeros(1, requires_grad=True)
    learner = Learner([parameter], lambda batch: parameter.sum() * batch, Recipe(lr=0.1, batch_size=1), steps=3, per_epoch=2)
    learner.epoch([1, 1])
    learner.epoch([1, 1])
    learner.epoch([1, 1])
    assert (learner.done, len(learner.losses)) == (3, 2)


def test_a_loss_that_is_not_finite_is_refused():
    parameter = torch.zeros(1)
    with pytest.raises(UserError, match="became nan by step 1"):
        learn([parameter], lambda rows: parameter.sum() * math.nan, 1, Recipe(lr=0.1, batch_size=1, epochs=1), seed=0)
