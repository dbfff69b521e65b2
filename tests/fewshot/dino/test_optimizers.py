"""LARS against its formula, the two groups, and clipping of each parameter alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewshot.dino.optimizers import Lars, clip_each, make_optimizer
from fewshot.dino.options import OPTIMIZERS


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((3, 4), (4,), (2, 2))]


def with_gradients(found: list[nn.Parameter], seed: int) -> None:
    for parameter, other in zip(found, parameters(seed), strict=True):
        parameter.grad = other.detach().clone()


def test_lars_by_its_formula() -> None:
    found, momenta = parameters(), [torch.zeros_like(parameter) for parameter in parameters()]
    optimizer = Lars(found, lr=0.3, weight_decay=0.2, momentum=0.8, trust=0.01)
    for number in range(3):
        expected = []
        with_gradients(found, 10 + number)
        for parameter, momentum in zip(found, momenta, strict=True):
            w, d = parameter.detach().clone(), parameter.grad.clone()  # type: ignore[union-attr]
            if w.ndim > 1:
                d = d + 0.2 * w
                d = d * (0.01 * w.pow(2).sum().sqrt() / d.pow(2).sum().sqrt())
            momentum.copy_(0.8 * momentum + d)
            expected.append(w - 0.3 * momentum)
        optimizer.step()
        for parameter, w in zip(found, expected, strict=True):
            torch.testing.assert_close(parameter.detach(), w)


@pytest.mark.parametrize("which", ["weight", "gradient"])
def test_lars_does_not_scale_where_a_length_is_0(which: str) -> None:
    weight = nn.Parameter(torch.zeros(2, 2) if which == "weight" else torch.ones(2, 2))
    weight.grad = torch.ones(2, 2) if which == "weight" else torch.zeros(2, 2)
    before = weight.detach().clone()
    Lars([weight], lr=0.5).step()
    torch.testing.assert_close(weight.detach(), before - 0.5 * weight.grad)


def test_lars_leaves_what_has_no_gradient() -> None:
    found = parameters()
    Lars(found, lr=0.5).step()
    assert all(torch.equal(one, other) for one, other in zip(found, parameters(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_vectors_do_not(name: str) -> None:
    matrix, vector, other = parameters()
    optimizer = make_optimizer(name, [matrix, vector, other])
    first, second = optimizer.param_groups
    assert [id(one) for one in first["params"]] == [id(matrix), id(other)]
    assert [id(one) for one in second["params"]] == [id(vector)]
    first["weight_decay"] = 0.5
    for group in (first, second):
        group["lr"] = 0.1
    for parameter in (matrix, vector, other):
        parameter.grad = torch.zeros_like(parameter)
    before = vector.detach().clone(), matrix.norm().item()
    optimizer.step()
    assert torch.equal(vector, before[0])
    assert matrix.norm().item() < before[1]


def test_adamw_has_the_usual_betas() -> None:
    assert make_optimizer("adamw", parameters()).param_groups[0]["betas"] == (0.9, 0.999)


def test_each_gradient_is_clipped_alone() -> None:
    found = parameters()
    with_gradients(found, 1)
    found[1].grad *= 0.01  # type: ignore[operator]
    found.append(nn.Parameter(torch.ones(2)))  # without a gradient
    before = [parameter.grad.clone() for parameter in found[:3]]  # type: ignore[union-attr]
    clip_each(found, 0.3)
    for parameter, grad in zip(found, before, strict=False):
        torch.testing.assert_close(parameter.grad, grad * min(1.0, 0.3 / (grad.norm().item() + 1e-6)))
    assert torch.equal(found[1].grad, before[1])  # type: ignore[arg-type]  # short enough already
    assert found[3].grad is None


def test_nothing_to_clip() -> None:
    clip_each(parameters(), 0.3)
