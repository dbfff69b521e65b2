"""Linear layers with weights of every image's own: against a loop over images, and autograd of that loop."""

import pytest
import torch

from merging.wemoe import linear
from merging.wemoe.linear import RoutedLinear

IMAGES, TOKENS, INPUTS, OUTPUTS, TASKS = 5, 4, 6, 7, 3


@pytest.fixture(params=[1, 2 * INPUTS * OUTPUTS, 1 << 25], ids=["one-at-once", "two-at-once", "all-at-once"])
def at_once(request, monkeypatch):
    monkeypatch.setattr(linear, "MIXED", request.param)


def drawn(rows=IMAGES):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    layer = RoutedLinear(random(TASKS + 1, OUTPUTS, INPUTS), random(TASKS + 1, OUTPUTS))
    return layer, random(IMAGES, TOKENS, INPUTS).requires_grad_(), random(rows, TASKS).requires_grad_()


def by_loop(layer, x, weights):
    outputs = []
    for tokens, own in zip(x, weights.expand(len(x), -1), strict=True):
        weight = layer.weight[0] + sum(w * vector for w, vector in zip(own, layer.weight[1:], strict=True))
        bias = layer.bias[0] + sum(w * vector for w, vector in zip(own, layer.bias[1:], strict=True))
        outputs.append(tokens @ weight.T + bias)
    return torch.stack(outputs)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("rows", [IMAGES, 1])
def test_it_is_a_loop_over_images(rows):
    layer, x, weights = drawn(rows)
    torch.testing.assert_close(layer(x, weights), by_loop(layer, x, weights), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("rows", [IMAGES, 1])
def test_its_gradients_are_those_of_the_loop(rows):
    layer, x, weights = drawn(rows)
    direction = torch.randn(IMAGES, TOKENS, OUTPUTS, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((layer(x, weights) * direction).sum(), (x, weights))
    expected = torch.autograd.grad((by_loop(layer, x, weights) * direction).sum(), (x, weights))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_its_gradients_are_those_of_finite_differences():
    layer, x, weights = drawn()
    layer = layer.double()
    assert torch.autograd.gradcheck(layer, (x.detach().double().requires_grad_(), weights.detach().double().requires_grad_()))


def test_autocast_gives_its_own_precision_forwards_and_back():
    layer, x, weights = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, weights)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    expected = torch.autograd.grad(by_loop(layer, x, weights).sum(), weights)[0]
    torch.testing.assert_close(weights.grad, expected, rtol=0.05, atol=0.5)
    torch.testing.assert_close(y.float(), by_loop(layer, x, weights), rtol=0.05, atol=0.2)
