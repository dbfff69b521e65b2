"""The soft overlap: its formula by brute force, its limit, its gradient, and what several processes make of it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot.objectives.overlap import of_all_processes, soft_overlap
from metrics.overlap import overlap


def some(seed: int, n: int = 24, classes: int = 3, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return torch.randn(n, 6, generator=generator, dtype=torch.float64) + strength * torch.eye(6, dtype=torch.float64)[labels], labels


def brute_force(features: Tensor, labels: Tensor, softness: float) -> float:
    rows = torch.nn.functional.normalize(features).tolist()
    pairs = {True: [], False: []}
    for i, j in itertools.combinations(range(len(rows)), 2):
        pairs[bool(labels[i] == labels[j])].append(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)))

    def errors(t: float) -> float:
        below = [1 / (1 + math.exp(-(t - s) / softness)) for s in pairs[True]]
        above = [1 / (1 + math.exp(-(s - t) / softness)) for s in pairs[False]]
        return sum(below) / len(below) + sum(above) / len(above)

    return min(errors(-1 + edge / 100) for edge in range(201))


@pytest.mark.parametrize("softness", [0.02, 0.1])
def test_the_formula_by_brute_force(softness: float) -> None:
    features, labels = some(0)
    assert soft_overlap(features, labels, softness).item() == pytest.approx(brute_force(features, labels, softness), abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), strength=st.floats(0, 4))
def test_its_limit_is_no_less_than_the_overlap(seed: int, strength: float) -> None:
    """A threshold is one of the classifiers of which the overlap is the best."""
    features, labels = some(seed, strength=strength)
    units = torch.nn.functional.normalize(features)
    assert soft_overlap(features, labels, 1e-9).item() >= overlap(units.numpy(), labels.numpy()) - 1e-9


def test_where_the_distributions_cross_once_the_limit_is_the_overlap() -> None:
    """The example of metrics.overlap: 0.6, 0.8 and 0.96 within a class, 0, 0.6 and 0.8 between classes."""
    rows, labels = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([0, 0, 0, 1])
    assert soft_overlap(rows, labels, 1e-9).item() == pytest.approx(2 / 3)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of the least value over all edges, although the threshold is held: where it is best, moving it changes nothing to first order."""
    features, labels = some(1, n=12)
    features.requires_grad_(True)
    soft_overlap(features, labels, 0.1).backward()
    assert torch.autograd.gradcheck(lambda rows: soft_overlap(rows, labels, 0.1), features)
    assert features.grad is not None and features.grad.norm() > 1e-3
    along = (features.grad * features).sum(dim=1)
    assert along.abs().max() < 1e-12  # lengths do not count


def test_following_the_gradient_lowers_the_overlap_that_is_measured() -> None:
    features, labels = some(2, n=60, strength=0.5)
    before = overlap(torch.nn.functional.normalize(features).numpy(), labels.numpy())
    rows = features.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([rows], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        soft_overlap(rows, labels, 0.05).backward()
        optimizer.step()
    assert overlap(torch.nn.functional.normalize(rows.detach()).numpy(), labels.numpy()) < 0.5 * before


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_pairs_of_both_kinds_there_is_nothing_to_learn(labels: list[int]) -> None:
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    loss = soft_overlap(features, torch.tensor(labels), 0.05)
    loss.backward()
    assert loss.item() == 0 and not features.grad.any()  # type: ignore[union-attr]


class TwoProcesses:
    """The runtime of one of two processes, of which the other's rows are known."""

    world = 2

    def __init__(self, rank: int, shares: list[tuple[Tensor, Tensor]]) -> None:
        self.rank, self.shares = rank, shares

    def gather_rows(self, rows: Tensor) -> Tensor:
        if rows.dtype.is_floating_point:
            return torch.cat([features.detach() for features, _ in self.shares])
        if torch.equal(rows, self.shares[self.rank][1]):
            return torch.cat([labels for _, labels in self.shares])
        return torch.cat([torch.full_like(labels, rank) for rank, (_, labels) in enumerate(self.shares)])


def test_the_gradients_of_two_processes_add_up_to_that_of_one() -> None:
    features, labels = some(3, n=13)
    labels = labels + 5  # not to be taken for ranks
    whole = features.clone().requires_grad_(True)
    loss = soft_overlap(whole, labels, 0.05)
    loss.backward()
    shares = [(features[rank::2].clone().requires_grad_(True), labels[rank::2]) for rank in range(2)]
    for rank, share in enumerate(shares):
        together = of_all_processes(TwoProcesses(rank, shares), *share)  # type: ignore[arg-type]
        own = soft_overlap(*together, 0.05)
        own.backward()
        assert own.item() == pytest.approx(loss.item(), abs=1e-12)
        torch.testing.assert_close(share[0].grad, whole.grad[rank::2], rtol=0, atol=1e-12)  # type: ignore[index]
