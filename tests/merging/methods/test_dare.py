"""DARE's masks are functions of seed, model and tensor, and of nothing else."""

import pytest
import torch

import merging.weights
from merging.methods.dare import uniform
from merging.options import MergeOptions
from merging.table import METHODS
from merging.weights import Pool, TensorWeights
from tests.merging import small_weights, textbook
from tests.merging.small_weights import assert_equal, merged

DARE = ["dare_average", "dare_task_arithmetic", "dare_ties"]


def thinned(base, models, drop_rate, seed, rescale=True):
    """The task vectors [K, d], dropped with the masks that are documented."""
    factor = 1 / (1 - drop_rate) if rescale else 1
    rows = []
    for index, model in enumerate(models):
        kept = {name: uniform(seed, f"task{index}", name, slice(0, tensor.numel())) < 1 - drop_rate for name, tensor in base.items()}
        rows.append(torch.cat([((model[name] - base[name]).reshape(-1) * kept[name]) * factor for name in base]))
    return torch.stack(rows)


MERGES = {
    "dare_average": (1.0, lambda vectors: vectors.double().mean(0)),
    "dare_task_arithmetic": (0.3, lambda vectors: vectors.double().sum(0)),
    "dare_ties": (0.5, lambda vectors: textbook.ties(vectors, 0.2, "sum")),
}


@pytest.mark.parametrize("method", DARE)
@pytest.mark.parametrize("drop_rate", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rescale", [True, False])
def test_equals_the_textbook(method, drop_rate, rescale):
    base, models = small_weights.draw(3, shared=0.5)
    scaling, merge = MERGES[method]
    vectors = thinned(base, models, drop_rate, seed=4, rescale=rescale)
    expected = textbook.add(base, textbook.unflatten(merge(vectors), base), scaling)
    assert_equal(merged(method, small_weights.pool(base, models), drop_rate=drop_rate, seed=4, rescale=rescale), expected)


def test_drops_the_fraction_that_was_asked_for():
    drawn = uniform(0, "model", "tensor", slice(0, 400_000))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(float((drawn < 0.3).double().mean()) - 0.3) < 5 * (0.21 / 400_000) ** 0.5


def test_seed_model_and_tensor_all_decide():
    part = slice(0, 64)
    draws = [
        uniform(0, "a", "b", part),
        uniform(1, "a", "b", part),
        uniform(0, "b", "b", part),
        uniform(0, "a", "c", part),
        uniform(0, "ab", "", part),
    ]
    assert all(not torch.equal(one, other) for i, one in enumerate(draws) for other in draws[:i])
    assert torch.equal(uniform(0, "a", "b", part), draws[0])


@pytest.mark.parametrize("start", [0, 3, 8, 13])
def test_a_part_is_drawn_as_in_the_whole(start):
    assert torch.equal(uniform(0, "a", "b", slice(start, start + 21)), uniform(0, "a", "b", slice(0, 64))[start : start + 21])


@pytest.mark.parametrize("method", DARE)
def test_order_of_tensors_models_and_parts_does_not_matter(method, monkeypatch):
    base, models = small_weights.draw(3)
    forward = merged(method, small_weights.pool(base, models))
    monkeypatch.setattr(merging.weights, "PART", 5)
    named = tuple(TensorWeights(f"task{index}", tensors) for index, tensors in enumerate(models))
    reordered = Pool(TensorWeights("base", base), named[::-1], tuple(reversed(base)))
    merge = METHODS[method].start(reordered, MergeOptions())
    assert_equal({name: merge(name) for name in base}, forward)
