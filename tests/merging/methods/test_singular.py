"""Singular triplets by way of the Gram matrix, and what merging by them does where the rank is not full."""

import pytest
import torch

from merging.methods.singular import polar, triplets
from tests.merging import small_weights
from tests.merging.small_weights import merged


def matrix(rows: int, columns: int, rank: int | None = None, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6), (1, 4)])
def test_triplets_are_those_of_the_decomposition(shape):
    a = matrix(*shape)
    u, s, v = triplets(a)
    torch.testing.assert_close(u * s @ v.T, a.double(), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(s, torch.linalg.svdvals(a.double()))
    for vectors in (u, v):
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(s), dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_largest_triplets_come_first():
    a = matrix(9, 6)
    whole, largest = triplets(a), triplets(a, 2)
    for all_of_them, few in zip(whole, largest, strict=True):
        torch.testing.assert_close(all_of_them[..., :2], few)


@pytest.mark.parametrize(("rank", "shape"), [(0, (5, 4)), (1, (7, 4)), (3, (4, 7))])
def test_directions_that_are_rounding_are_left_out(rank, shape):
    assert triplets(matrix(*shape, rank=rank)).s.shape == (rank,)


def test_a_matrix_without_columns():
    assert polar(torch.zeros(5, 0)).shape == (5, 0)


def test_polar_factor_of_a_matrix_of_low_rank():
    """A partial isometry: it keeps lengths on the range of the matrix, and nothing else."""
    p = polar(matrix(8, 2).double() @ matrix(2, 5, seed=1).double())
    torch.testing.assert_close(p @ p.T @ p, p, atol=1e-9, rtol=0)
    assert torch.linalg.matrix_rank(p) == 2


def test_polar_factor_keeps_directions_that_are_weak_but_real():
    """Two columns that differ by 1e-6 are made orthogonal; by way of their Gram matrix the difference would look like rounding."""
    first, second = torch.eye(50, 2, dtype=torch.float64).T
    p = polar(torch.stack([first, first + 1e-6 * second], dim=1))
    torch.testing.assert_close(p.T @ p, torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)


def pool_of(*vectors: torch.Tensor):
    return small_weights.pool({"w": torch.zeros_like(vectors[0])}, [{"w": vector} for vector in vectors])


def test_iso_c_adds_no_direction():
    """A sum of rank one stays of rank one, with the mean of all singular values, zeros included."""
    a = matrix(6, 4, rank=1)
    torch.testing.assert_close(merged("iso_c", pool_of(a))["w"], a / 4)


@pytest.mark.parametrize("count", [2, 4])
def test_tsv_m_cuts_equal_models_to_their_share_of_the_rank(count):
    a = matrix(12, 8)
    u, s, v = triplets(a, 8 // count)
    torch.testing.assert_close(merged("tsv_m", pool_of(*[a] * count))["w"], (u * s @ v.T).float())


def test_tsv_m_of_orthogonal_tasks_is_their_sum():
    first, second = torch.zeros(2, 6, 4)
    first[:3, :2], second[3:, 2:] = matrix(3, 2), matrix(3, 2, seed=1)
    torch.testing.assert_close(merged("tsv_m", pool_of(first, second))["w"], first + second)


def test_tsv_m_keeps_a_direction_of_each_of_more_tasks_than_the_rank():
    vectors = [matrix(3, 2, seed=seed) for seed in range(5)]
    assert merged("tsv_m", pool_of(*vectors))["w"].abs().sum() > 0
