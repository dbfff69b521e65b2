"""Features and options."""

import pytest
import torch

from common.errors import UserError
from fewshot.options import FewShotOptions
from tests.fewshot.drawn_features import draw


def test_some_of_the_images():
    features = draw().test
    for rows in (slice(2, 5), torch.tensor([2, 3, 4])):
        some = features[rows]
        assert len(some) == 3
        assert torch.equal(some.adapted, features.adapted[2:5])
        assert torch.equal(some.labels, features.labels[2:5])


def test_zero_shot_logits_are_of_original_features():
    data = draw()
    torch.testing.assert_close(data.zero_shot(data.test), 100 * data.test.original @ data.classifier.T)


@pytest.mark.parametrize("wrong", [{"search": "best"}, {"grid": "mine"}])
def test_unknown_options(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} is"):
        FewShotOptions(**wrong)
