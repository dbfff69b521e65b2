"""Tip-Adapter-F: starts as Tip-Adapter, and follows the gradient of the textbook formula."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fewshot.affine import Point, logits_of
from fewshot.methods import tip_adapter_f
from fewshot.methods.tip_adapter import tip_model
from fewshot.methods.tip_adapter_f import RECIPE, learnt_keys
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import draw, one_hot

POINT = Point(1.17, 1.0)
BOTH = pytest.mark.parametrize("corrected", [False, True])
SHOTS = pytest.mark.parametrize("shots", [3, [5, 1, 2, 2, 9, 1, 4]], ids=["balanced", "unbalanced"])


def first_step(data, corrected, lr=1e-3, eps=1e-4, wd=0.01):
    """The keys after one step of AdamW on all images, by autograd of the formula with its one-hot product."""
    f = data.cache.among_images(corrected)
    keys = f.clone().requires_grad_(True)
    logits = 100 * data.cache.original @ data.classifier.T + 1.17 * torch.exp(-1.0 * (1 - f @ keys.T)) @ one_hot(data)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, data.cache.labels), keys)
    return (keys * (1 - lr * wd) - lr * gradient / (gradient.abs() + eps)).detach()


@BOTH
@SHOTS
def test_the_first_step_by_the_formula(shots, corrected):
    data = draw(shots=shots)
    keys, _ = learnt_keys(data, corrected, POINT, replace(RECIPE, epochs=1), seed=0)
    torch.testing.assert_close(keys, first_step(data, corrected), rtol=0, atol=1e-6)


@BOTH
@SHOTS
def test_before_the_first_step_it_is_tip_adapter(shots, corrected, monkeypatch):
    monkeypatch.setattr(tip_adapter_f, "RECIPE", replace(RECIPE, epochs=0))
    data, options, name = draw(shots=shots), FewShotOptions(), "_corrected" if corrected else ""
    one, other = (METHODS[method + name].fit(data, options) for method in ("tip_adapter_f", "tip_adapter"))
    assert one.hyperparameters == other.hyperparameters
    torch.testing.assert_close(one.logits(data.test), other.logits(data.test))


@BOTH
def test_logits_of_learnt_keys_by_the_formula(corrected):
    data = draw()
    found = METHODS["tip_adapter_f_corrected" if corrected else "tip_adapter_f"].fit(data, FewShotOptions(search="fixed", seed=3))
    keys, _ = learnt_keys(data, corrected, POINT, RECIPE, seed=3)
    f = data.test.among_images(corrected)
    expected = 100 * data.test.original @ data.classifier.T + 1.17 * torch.exp(-(1 - f @ keys.T)) @ one_hot(data)
    torch.testing.assert_close(found.logits(data.test), expected, rtol=1e-5, atol=1e-5)


def test_alpha_0_is_zero_shot():
    data = draw()
    keys, _ = learnt_keys(data, False, POINT, replace(RECIPE, epochs=2), seed=0)
    assert torch.equal(logits_of(tip_model(data, keys, False), data.test, 50, Point(0.0, 1.0)), data.zero_shot(data.test))


@pytest.mark.parametrize(("dataset", "epochs"), [("EuroSAT", 100), ("DTD", 20), ("", 20)])
def test_published_epochs(dataset, epochs):
    facts = METHODS["tip_adapter_f"].fit(draw(dataset=dataset), FewShotOptions(search="fixed")).facts
    assert (facts["steps"], facts["lr"], facts["batch_size"]) == (epochs, 1e-3, 256)
    assert facts["last_loss"] < facts["first_loss"]
