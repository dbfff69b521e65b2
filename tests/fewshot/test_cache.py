"""Sums over the keys of each class, against products with one-hot labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.cache import Cache, sharpened
from tests.fewshot.drawn_features import draw, one_hot

SHOTS = {"balanced": 3, "unbalanced": [5, 1, 2, 2, 9, 1, 4], "empty class": [2, 0, 3, 1, 0, 2, 2], "one shot": 1}


@pytest.mark.parametrize("shots", SHOTS.values(), ids=SHOTS)
def test_tip_adapter_logits_are_the_product_with_one_hot_labels(shots):
    data = draw(shots=shots)
    cache = Cache(data.cache.original, data.cache.labels, data.classes)
    plain = torch.exp(-3.5 * (1 - data.val.original @ data.cache.original.T)) @ one_hot(data)
    found = cache.similarity(cache.affinity(data.val.original), 3.5)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def test_weights_of_keys():
    data = draw(shots=SHOTS["unbalanced"])
    cache = Cache(data.cache.original, data.cache.labels, data.classes)
    weights = torch.rand(len(cache))
    plain = torch.exp(-(1 - data.val.original @ data.cache.original.T)) @ torch.diag(weights) @ one_hot(data)
    found = cache.class_sums(sharpened(cache.affinity(data.val.original), 1.0) * weights[cache.order, None])
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 5), max_size=20))
def test_any_labels_in_any_order(labels):
    labels = torch.tensor(labels, dtype=torch.int64)
    values = torch.arange(3.0 * len(labels)).view(len(labels), 3)
    cache = Cache(torch.zeros(len(labels), 2), labels, 6)
    assert sorted(cache.order.tolist()) == list(range(len(labels)))
    expected = torch.zeros(6, 3).index_add_(0, labels, values).T
    assert torch.equal(cache.class_sums(values[cache.order]), expected)
