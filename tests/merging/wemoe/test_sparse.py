"""Pruning against the quantile, and the form in files to the bit."""

import pytest
import torch

from merging.wemoe.sparse import each_pruned, magnitude_pruned, pack, unpack


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(64, 33), (1000,), (11,)], ids=str)
def test_what_is_above_the_quantile_stays(shape, ratio):
    tensor = drawn(*shape)
    magnitudes = tensor.double().abs()
    expected = tensor * (magnitudes > magnitudes.quantile(ratio))
    assert torch.equal(magnitude_pruned(tensor, ratio), expected)


def test_ninety_percent_means_a_tenth_stays():
    assert int(magnitude_pruned(drawn(1000), 0.9).count_nonzero()) == 100


def test_equal_magnitudes_fall_together():
    assert magnitude_pruned(torch.tensor([1.0, -2.0, 2.0, 2.0, 3.0]), 0.5).tolist() == [0, 0, 0, 0, 3]


def test_every_task_vector_is_pruned_by_itself():
    vectors = torch.stack((drawn(10, 10), 100 * drawn(10, 10, seed=1)))
    pruned = each_pruned(vectors, 0.9)
    assert [int(one.count_nonzero()) for one in pruned] == [10, 10]
    assert each_pruned(vectors, None) is vectors


@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (8,), (2, 8)], ids=str)
def test_packing_returns_to_the_bit(shape):
    tensor = magnitude_pruned(drawn(*shape), 0.5)
    mask, values = pack(tensor)
    assert mask.nbytes == -(-tensor.numel() // 8)
    assert len(values) == int(tensor.count_nonzero())
    assert torch.equal(unpack(mask, values, shape).view(torch.int32), tensor.view(torch.int32))


def test_a_mask_that_does_not_fit_is_told():
    mask, values = pack(drawn(4, 4))
    with pytest.raises(ValueError, match=r"of 2 torch\.uint8 is not that of 20"):
        unpack(mask, values, (4, 5))
    with pytest.raises(ValueError, match="16 entries, and there are 15"):
        unpack(mask, values[1:], (4, 4))
