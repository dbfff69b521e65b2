"""APE, against the formula with all its matrices."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from fewshot.channels import select_channels
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import draw, one_hot

FIXED = FewShotOptions(search="fixed")


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("shots", [3, [5, 1, 2, 2, 9, 1, 4]], ids=["balanced", "unbalanced"])
def test_logits_by_the_formula(shots, corrected, as_released):
    data = draw(shots=shots, dataset="DTD")
    channels = select_channels(data.classifier, data.cache.original, data.cache.labels, (0.5, 0.5), 12)  # 400 of 1024, of 32
    f, keys = (normalize(of.among_images(corrected)[:, channels], dim=1) for of in (data.test, data.cache))
    texts, originals = (normalize(of[:, channels], dim=1) for of in (data.classifier, data.cache.original))
    values, p = one_hot(data), (originals @ texts.T).softmax(dim=1)
    smoothing = 1e-6 if as_released else 0.0
    ratios = (values + smoothing) / (p + smoothing)
    bits = torch.where(values > 0, values * ratios.clamp(min=1e-30).log2(), 0.0).sum(dim=1)
    expected = 100 * data.test.original @ data.classifier.T
    expected = expected + 3 * torch.exp(-1.0 * (1 - f @ keys.T)) @ torch.diag((0.1 * bits).exp()) @ values
    found = METHODS["ape_corrected" if corrected else "ape"].fit(data, replace(FIXED, as_released=as_released))
    assert found.hyperparameters == {"alpha": 3, "beta": 1.0, "gamma": 0.1}
    assert found.facts["channels"] == 12
    torch.testing.assert_close(found.logits(data.test), expected, rtol=1e-5, atol=2e-5)
