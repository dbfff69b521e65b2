"""Logistic regression against scikit-learn and the condition of a minimum."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from fewshot.logistic import at_zero, logistic_regression

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 2, 1])
ROWS = 3 * torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS -= ROWS.mean(dim=0)


def fitted(penalty, start=None):
    return logistic_regression(ROWS, LABELS, penalty, 1000, start or at_zero(3, ROWS))


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 3.0, 100.0])
def test_probabilities_are_those_of_scikit_learn(penalty):
    other = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-9).fit(ROWS.numpy(), LABELS.numpy())
    found = fitted(penalty).logits(ROWS).softmax(dim=1)
    np.testing.assert_allclose(found.numpy(), other.predict_proba(ROWS.numpy()), atol=2e-5)


def test_the_gradient_vanishes_and_the_intercept_is_free():
    weight, bias = (part.clone().requires_grad_(True) for part in fitted(0.5))
    (F.cross_entropy(ROWS @ weight.T + bias, LABELS, reduction="sum") + 0.25 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_where_it_starts_does_not_matter():
    warm = fitted(0.5, start=fitted(50.0))
    torch.testing.assert_close(warm.logits(ROWS).softmax(1), fitted(0.5).logits(ROWS).softmax(1), atol=1e-4, rtol=0)


def test_one_class_is_no_error():
    found = logistic_regression(ROWS, torch.zeros(12, dtype=torch.int64), 1.0, 100, at_zero(1, ROWS))
    assert torch.equal(found.weight, torch.zeros(1, 5, dtype=torch.float64))
