"""The loss of self-distillation against the double loop over teacher and student views, with gradients, in chunks of every size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fewshot.dino.loss import distillation, moved_centre, teacher_targets


def some(seed: int, views: int = 5, images: int = 3, prototypes: int = 11, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Unit student vectors, unit prototypes, and the teacher's cosines of two views, in float64."""
    generator = torch.Generator().manual_seed(seed)
    students = F.normalize(torch.randn(views, images, width, generator=generator, dtype=torch.float64), dim=-1)
    weight = F.normalize(torch.randn(prototypes, width, generator=generator, dtype=torch.float64), dim=-1)
    return students, weight, 2 * torch.rand(2, images, prototypes, generator=generator, dtype=torch.float64) - 1


def brute_force(students: Tensor, prototypes: Tensor, targets: Tensor) -> Tensor:
    """Every pair of a teacher's view and another view of the student, summed."""
    total = students.new_zeros(())
    for i, target in enumerate(targets):
        for v, student in enumerate(students):
            if v != i:
                total = total - (target * F.log_softmax(student @ prototypes.T / 0.1, dim=-1)).sum()
    return total


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), views=st.integers(2, 6), images=st.integers(1, 4), prototypes=st.integers(1, 12), chunk=st.integers(1, 13))
def test_value_and_gradients_are_those_of_the_double_loop(seed: int, views: int, images: int, prototypes: int, chunk: int) -> None:
    students, weight, cosines = some(seed, views, images, prototypes)
    targets = teacher_targets(cosines, torch.zeros(prototypes, dtype=torch.float64), 0.07)
    found, expected = ([one.clone().requires_grad_(True) for one in (students, weight)] for _ in range(2))
    loss, plain = distillation(*found, targets, chunk=chunk), brute_force(*expected, targets)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-10)
    (3 * loss).backward()
    (3 * plain).backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10)


def test_float32_and_many_prototypes() -> None:
    students, weight, cosines = (one.float() for one in some(1, prototypes=20000, width=16))
    targets = teacher_targets(cosines, torch.zeros(20000), 0.04)
    expected = brute_force(students.double(), weight.double(), targets.double()).item()
    assert distillation(students, weight, targets).item() == pytest.approx(expected, rel=1e-6)


def test_frozen_prototypes_get_no_gradient() -> None:
    students, weight, cosines = some(2)
    students.requires_grad_(True)
    distillation(students, weight, cosines.softmax(dim=-1)).backward()
    assert students.grad is not None
    assert weight.grad is None


def test_half_precision_around_it_does_not_reach_it() -> None:
    students, weight, cosines = (one.float() for one in some(3, prototypes=40, width=16))
    found, expected = (students.clone().requires_grad_(True) for _ in range(2))
    targets = cosines.softmax(dim=-1)
    distillation(expected, weight, targets).backward()
    with torch.autocast("cpu", torch.bfloat16):
        distillation(found, weight, targets).backward()
    assert torch.equal(found.grad, expected.grad)  # type: ignore[arg-type]


def test_targets_are_centred_and_sharpened() -> None:
    cosines, centre = torch.tensor([[0.2, 0.5, -0.1]]), torch.tensor([0.1, 0.3, 0.0])
    logits = [(0.2 - 0.1) / 0.04, (0.5 - 0.3) / 0.04, -0.1 / 0.04]
    torch.testing.assert_close(teacher_targets(cosines, centre, 0.04)[0], torch.tensor(logits).softmax(0))


def test_the_centre_moves_by_a_tenth() -> None:
    torch.testing.assert_close(moved_centre(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5])), torch.tensor([0.9, 0.05]))
