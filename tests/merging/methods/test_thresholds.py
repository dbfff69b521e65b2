"""The threshold of trimming is that of a full sort, to the bit."""

import numpy as np
import pytest
import torch

import merging.weights
from merging.methods.thresholds import kept_from
from tests.merging import small_weights, textbook


def rows(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed))


def thresholds(vectors: torch.Tensor, density: float) -> torch.Tensor:
    pool = small_weights.pool({"all": torch.zeros(vectors.shape[1])}, [{"all": vector} for vector in vectors])
    return kept_from(pool, pool.merged, pool.task_vectors, density)


def bits(values: torch.Tensor) -> list[int]:
    return values.view(torch.int32).tolist()


DISTRIBUTIONS = {
    "normal": rows(3, 20_001),
    "tiny and huge": rows(3, 5000) * 10.0 ** (30 * rows(3, 5000, seed=1)).clamp(-37, 37),
    "subnormal": rows(3, 999) * 1e-40,
    "many equal": (rows(3, 4000) * 2).round(),
    "nine tenths zero": torch.where(rows(3, 4000, seed=2) > 1.2, rows(3, 4000), 0.0),
    "one bin": 1 + rows(3, 4000).abs() * 1e-6,
    "all zero": torch.zeros(3, 50),
    "signed zeros": torch.tensor([[0.0, -0.0, 1.0, -1.0], [-0.0, -0.0, -0.0, -0.0], [5.0, -5.0, -0.0, 0.0]]),
    "one weight": torch.tensor([[-3.0], [0.0], [2.0]]),
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.999, 1.0])
def test_equals_a_full_sort(distribution, density):
    vectors = DISTRIBUTIONS[distribution]
    expected = torch.tensor([textbook.threshold(vector, density) for vector in vectors], dtype=torch.float32)
    assert bits(thresholds(vectors, density)) == bits(expected)


@pytest.mark.parametrize("part", [1, 7, 64])
def test_parts_and_tensors_do_not_matter(part, monkeypatch):
    base, models = small_weights.draw(3)
    pool = small_weights.pool(base, models)
    whole = textbook.task_matrix(base, models)
    monkeypatch.setattr(merging.weights, "PART", part)
    found = kept_from(pool, pool.merged, pool.task_vectors, 0.2)
    assert found.tolist() == [textbook.threshold(vector, 0.2) for vector in whole]


def test_one_more_than_the_density_says_survives():
    """The k-th smallest is kept, so floor(d * density) + 1 entries are: 200,001 of 1,000,003 at 20 %."""
    vector = rows(1, 1_000_003)
    assert len(np.unique(vector.abs())) > 1_000_000 - 40_000  # hardly any equal magnitudes
    cut = thresholds(vector, 0.2)
    assert int((vector.abs() >= cut[:, None]).sum()) == 200_001
