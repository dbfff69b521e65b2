"""Tip-Adapter and its corrected version, against the formula."""

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import draw, one_hot

FIXED = FewShotOptions(search="fixed")


@pytest.mark.parametrize("shots", [3, [5, 1, 2, 2, 9, 1, 4]], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("corrected", [False, True])
def test_logits_by_the_formula(shots, corrected):
    data = draw(shots=shots, dataset="DTD@coop")
    f, keys = data.test.among_images(corrected), data.cache.among_images(corrected)
    expected = 100 * data.test.original @ data.classifier.T + 2 * torch.exp(-1.0 * (1 - f @ keys.T)) @ one_hot(data)
    found = METHODS["tip_adapter_corrected" if corrected else "tip_adapter"].fit(data, FIXED)
    assert found.hyperparameters == {"alpha": 2, "beta": 1.0}
    torch.testing.assert_close(found.logits(data.test), expected, rtol=1e-5, atol=1e-5)


def test_a_corrected_method_needs_adapted_features():
    data = draw()
    without = replace(data, cache=replace(data.cache, adapted=None))
    with pytest.raises(UserError, match="--adapter"):
        METHODS["tip_adapter_corrected"].fit(without, FIXED)
