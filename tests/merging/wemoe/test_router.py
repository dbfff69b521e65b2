"""Routers: published counts of parameters, how they begin, and where a block's position goes."""

import math

import pytest
import torch

from merging.wemoe.router import Router, position_of

TASKS = 8


def router(width, layers, start=0.3, seed=0):
    return Router(width, TASKS, layers, start, torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("blocks", "width", "layers", "published"),
    [
        pytest.param(12, 768, 2, 7_160_928, id="ViT-B/32"),
        pytest.param(24, 1024, 2, 25_387_200, id="ViT-L/14"),
        pytest.param(1, 768, 2, 596_744, id="E-WEMoE, one for all blocks"),
        pytest.param(12, 768, 1, 73_824, id="ViT-B/32, one layer"),
        pytest.param(12, 768, 0, 96, id="ViT-B/32, constant"),
    ],
)
def test_counts_of_parameters_are_the_published_ones(blocks, width, layers, published):
    assert blocks * count(router(width, layers)) == published


def test_it_begins_near_task_arithmetic():
    h = torch.randn(6, 5, 32, generator=torch.Generator().manual_seed(1))
    for layers, far in ((0, 0.0), (1, 0.2), (2, 0.05)):
        weights = router(32, layers).requires_grad_(False)(h)
        assert weights.shape == (6 if layers else 1, TASKS)
        assert float((weights - 0.3).abs().max()) <= far


def test_what_is_drawn_has_the_published_spread():
    two = router(300, 2).requires_grad_(False)
    assert two.hidden.weight.std() == pytest.approx(0.01, rel=0.02)
    assert two.last.weight.std() == pytest.approx(0.01, rel=0.05)
    assert not two.hidden.bias.any()
    assert two.last.bias.eq(0.3).all()


def test_the_seed_decides_what_is_drawn():
    one, same, other = router(16, 2).hidden.weight, router(16, 2).hidden.weight, router(16, 2, seed=1).hidden.weight
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_positions_are_sines_then_cosines():
    expected = [math.sin(3), math.sin(3 / 10), math.sin(3 / 100), math.sin(3 / 1000)]
    expected += [math.cos(3), math.cos(3 / 10), math.cos(3 / 100), math.cos(3 / 1000)]
    assert position_of(3, 8).tolist() == pytest.approx(expected, abs=1e-7)
    assert position_of(0, 4).tolist() == [0, 0, 1, 1]
