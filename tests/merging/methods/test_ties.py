"""What the textbook comparison cannot show of TIES: exact cancellations, equal models, both scopes."""

import pytest
import torch

from tests.merging import small_weights, textbook
from tests.merging.small_weights import assert_equal, merged


def vectors_pool(vectors: list[list[float]]):
    models = [{"w": torch.tensor(vector)} for vector in vectors]
    return small_weights.pool({"w": torch.zeros(len(vectors[0]))}, models)


# The third column cancels; most columns are elected positive, or negative, or as many of both.
CANCELLING = {
    "positive majority": [[1.0, 2.0, 3.0, -1.0], [1.0, 2.0, -3.0, 0.5]],
    "negative majority": [[-1.0, -2.0, 3.0, 1.0], [-1.0, -2.0, -3.0, -0.5]],
    "no majority": [[1.0, -2.0, 3.0], [1.0, -2.0, -3.0]],
}


@pytest.mark.parametrize("case", CANCELLING)
@pytest.mark.parametrize("merge_func", ["sum", "mean", "max"])
def test_cancelling_entries_take_the_majority_sign(case, merge_func):
    pool = vectors_pool(CANCELLING[case])
    expected = textbook.ties(torch.tensor(CANCELLING[case]), 1.0, merge_func)
    assert_equal(merged("ties", pool, density=1.0, scaling=1.0, merge_func=merge_func), {"w": expected}, tolerance=0)


def test_majority_sign_by_hand():
    pool = vectors_pool(CANCELLING["positive majority"])
    assert merged("ties", pool, density=1.0, scaling=1.0)["w"].tolist() == [2.0, 4.0, 3.0, -1.0]
    pool = vectors_pool(CANCELLING["negative majority"])
    assert merged("ties", pool, density=1.0, scaling=1.0)["w"].tolist() == [-2.0, -4.0, -3.0, 1.0]


def test_the_majority_is_that_of_the_scope():
    """Over the model positive signs prevail; in the tensor of the cancellation negative ones do."""
    one = {"a": torch.tensor([1.0, 1.0, 1.0]), "b": torch.tensor([2.0, -2.0])}
    other = {"a": torch.tensor([1.0, 1.0, 1.0]), "b": torch.tensor([-2.0, -2.0])}
    pool = small_weights.pool({name: torch.zeros_like(tensor) for name, tensor in one.items()}, [one, other])
    assert merged("ties", pool, density=1.0, scaling=1.0)["b"].tolist() == [2.0, -4.0]
    assert merged("ties", pool, density=1.0, scaling=1.0, scope="tensor")["b"].tolist() == [-2.0, -4.0]


def test_the_scope_of_trimming():
    """Over the model the small tensor is trimmed away; by tensor its largest entries stay."""
    model = {"large": torch.arange(1.0, 9.0), "small": torch.arange(1.0, 9.0) / 100}
    pool = small_weights.pool({name: torch.zeros(8) for name in model}, [model])
    assert merged("ties", pool, density=0.25, scaling=1.0)["small"].count_nonzero() == 0
    assert merged("ties", pool, density=0.25, scaling=1.0, scope="tensor")["small"].count_nonzero() == 3


@pytest.mark.parametrize("merge_func", ["mean", "max"])
def test_one_model_many_times_is_trimmed_only(merge_func):
    """With ``mean`` and ``max`` K equal models merge to that model's largest entries, where ``sum`` gives K times as much."""
    base, (model,) = small_weights.draw(1)
    once = merged("ties", small_weights.pool(base, [model]), scaling=1.0)
    assert_equal(merged("ties", small_weights.pool(base, [model] * 4), scaling=1.0, merge_func=merge_func), once)
    pruned = merged("ties", small_weights.pool(base, [model]), scaling=1.0, density=1.0)
    assert_equal(pruned, model)
