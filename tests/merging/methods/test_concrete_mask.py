"""Concrete masks: samples, the mean of 1, the gradient of logits against autograd, the masks that are merged by."""

import pytest
import torch

from merging.methods.concrete_mask import Masks, logits_gradient, rescaled, sample

BASE = {"a.in_proj_weight": torch.zeros(60, 8), "b.weight": torch.zeros(30, 20), "c": torch.zeros(())}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def learnt(seed=0):
    """Masks whose logits are no longer 0."""
    masks = Masks.like(BASE, 0.5, seed)
    for x in masks.logits.values():
        x.data += torch.randn(x.shape, generator=generator(9))
    return masks


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_sample_is_its_formula(temperature):
    x = torch.randn(50, 4, generator=generator(1))
    u = torch.rand(50, 4, generator=generator(2))
    expected = torch.sigmoid((u.log() - (1 - u).log() + x) / temperature)
    torch.testing.assert_close(sample(x, temperature, generator(2)), expected, rtol=1e-4, atol=1e-6)


def test_a_sample_is_above_a_half_with_the_probability_of_its_logit():
    for x in (-1.0, 0.0, 2.0):
        share = (sample(torch.full((40_000,), x), 0.5, generator()) > 0.5).float().mean()
        assert share.item() == pytest.approx(torch.tensor(x).sigmoid().item(), abs=0.01)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_mean_of_each_part_is_1(parts):
    means = rescaled(torch.rand(6, 50, generator=generator()), parts).reshape(parts, -1).mean(dim=1)
    torch.testing.assert_close(means, torch.ones(parts))


def test_a_part_without_anything_stays_so():
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert rescaled(mask, 3).tolist() == [[0, 0], [2, 0], [1, 1]]


@pytest.mark.parametrize(("shape", "parts"), [((), 1), ((7,), 1), ((6, 5), 1), ((6, 5), 3), ((4, 3, 2, 2), 1)])
def test_the_gradient_of_logits_is_that_of_autograd(shape, parts):
    x = torch.randn(shape, dtype=torch.float64, generator=generator(3)).requires_grad_()
    u = torch.rand(shape, dtype=torch.float64, generator=generator(4))
    weights = torch.randn(shape, dtype=torch.float64, generator=generator(5))
    mask = torch.sigmoid((u.logit() + x) / 0.5)
    loss = (torch.stack([part / part.mean() for part in mask.reshape(parts, -1)]).reshape(shape) * weights).square().sum()
    (expected,) = torch.autograd.grad(loss, x)
    m = mask.detach()
    gradient = 2 * weights.square() * rescaled(m, parts)
    torch.testing.assert_close(logits_gradient(gradient, m, 0.5, parts), expected, rtol=1e-8, atol=1e-10)


def test_the_seed_decides_what_is_drawn():
    first, again, other = (Masks.like(BASE, 0.5, seed).draw() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in BASE)
    assert not torch.equal(first["b.weight"], other["b.weight"])


def test_every_draw_is_another():
    masks = Masks.like(BASE, 0.5, 0)
    assert not torch.equal(masks.draw()["b.weight"], masks.draw()["b.weight"])


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_before_learning_the_final_mask_is_1(kind):
    for name, mask in Masks.like(BASE, 0.5, 0).final(kind).items():
        assert torch.equal(mask, torch.ones_like(BASE[name]))


def test_the_final_continuous_mask_is_the_probability():
    masks = learnt()
    final = masks.final("continuous")
    torch.testing.assert_close(final["b.weight"], masks.logits["b.weight"].sigmoid() / masks.logits["b.weight"].sigmoid().mean())
    means = final["a.in_proj_weight"].reshape(3, -1).mean(dim=1)  # query, key and value by themselves
    torch.testing.assert_close(means, torch.ones(3))
    assert final["c"].item() == pytest.approx(1)


def test_the_final_discrete_mask_has_the_likelier_half():
    masks = learnt()
    final, x = masks.final("discrete")["b.weight"], masks.logits["b.weight"]
    assert torch.equal(final > 0, x >= 0)
    assert len(final[final > 0].unique()) == 1
    assert final.mean().item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_final_masks_are_drawn_only_when_asked_for(kind):
    assert all(torch.equal(learnt(0).final(kind)[name], learnt(1).final(kind)[name]) for name in BASE)
    first, again, other = (learnt(seed).final(kind, random=True)["b.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.mean().item() == pytest.approx(1, rel=1e-5)
