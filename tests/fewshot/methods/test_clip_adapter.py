"""CLIP-Adapter: the formula, its first step, CoOp's numbers of epochs."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fewshot.methods import clip_adapter
from fewshot.methods.clip_adapter import RATIO, RECIPE, REDUCTION, epochs_for
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from models.adapter import ClipAdapter
from tests.fewshot.drawn_features import draw


def fit(data, seed=0):
    return METHODS["clip_adapter"].fit(data, FewShotOptions(seed=seed))


def by_formula(data, images, adapter):
    x = images.original
    mixed = 0.2 * F.relu(F.relu(x @ adapter.down.weight.T) @ adapter.up.weight.T) + 0.8 * x
    return 100 * mixed / mixed.norm(dim=1, keepdim=True) @ data.classifier.T


def test_the_first_step_by_the_formula(monkeypatch):
    monkeypatch.setattr(clip_adapter, "EPOCHS", ((1, 1),))
    monkeypatch.setattr(clip_adapter, "RECIPE", replace(RECIPE, first_lr=0.1))
    data = draw()  # 28 images: one batch
    adapter = ClipAdapter(32, REDUCTION, RATIO, torch.Generator().manual_seed(5))
    gradients = torch.autograd.grad(F.cross_entropy(by_formula(data, data.cache, adapter), data.cache.labels), [*adapter.parameters()])
    with torch.no_grad():
        for weight, gradient in zip(adapter.parameters(), gradients, strict=True):
            weight.sub_(0.1 * (gradient + RECIPE.wd * weight))
    torch.testing.assert_close(fit(data, seed=5).logits(data.test), by_formula(data, data.test, adapter), rtol=1e-5, atol=1e-4)


def test_a_ratio_of_0_is_zero_shot(monkeypatch):
    monkeypatch.setattr(clip_adapter, "RATIO", 0.0)
    data = draw()
    torch.testing.assert_close(fit(data).logits(data.test), data.zero_shot(data.test), rtol=1e-5, atol=1e-4)


def test_training_lowers_the_loss():
    facts = fit(draw(noise=0.5)).facts
    assert facts["last_loss"] < facts["first_loss"]
    assert facts["steps"] == 100


@pytest.mark.parametrize(
    ("shots", "dataset", "epochs"),
    [(1, "", 50), (2, "", 100), (4, "DTD", 100), (8, "", 200), (16, "DTD", 200), (16, "ImageNet", 50), ([1, 1, 8, 1, 1, 1, 1], "", 200)],
    ids=str,
)
def test_epochs_of_coop(shots, dataset, epochs):
    assert epochs_for(draw(shots=shots, dataset=dataset)) == epochs
