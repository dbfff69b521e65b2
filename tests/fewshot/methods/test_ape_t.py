"""APE-T: starts as Tip-Adapter with a weight of one for each image, and follows the gradient of the textbook formula."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fewshot.affine import Point, logits_of
from fewshot.methods import ape_t
from fewshot.methods.ape_t import RECIPE, Refined, refine
from fewshot.methods.tip_adapter import tip_model
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import draw, one_hot

POINT, CHANNELS = Point(3.0, 1.0), torch.tensor([4, 0, 31, 17, 9])
BOTH = pytest.mark.parametrize("corrected", [False, True])
SHOTS = pytest.mark.parametrize("shots", [3, [5, 1, 2, 2, 9, 1, 4]], ids=["balanced", "unbalanced"])


def by_formula(data, images, corrected, residual, weights):
    """Logits with the residuals [C, Q] put on their channels by a matrix, and weights [M] in the order of the images."""
    widened = residual @ torch.eye(32)[CHANNELS]
    keys = data.cache.among_images(corrected) + one_hot(data) @ widened
    similarity = torch.exp(-1.0 * (1 - images.among_images(corrected) @ keys.T))
    return 100 * images.original @ (data.classifier + widened).T + 3 * similarity @ torch.diag(weights) @ one_hot(data)


@BOTH
@SHOTS
def test_the_first_step_by_the_formula(shots, corrected):
    data = draw(shots=shots)
    start = torch.zeros(7, 5, requires_grad=True), torch.ones(len(data.cache), requires_grad=True)
    loss = F.cross_entropy(by_formula(data, data.cache, corrected, *start), data.cache.labels)
    residual, weights = (
        (part * (1 - 1e-3 * 0.1) - 1e-3 * gradient / (gradient.abs() + 1e-3)).detach()
        for part, gradient in zip(start, torch.autograd.grad(loss, start), strict=True)
    )
    refined = Refined(data, corrected, CHANNELS)
    refine(refined, POINT, replace(RECIPE, epochs=1), seed=0)
    torch.testing.assert_close(refined.residual, residual, rtol=0, atol=1e-6)
    torch.testing.assert_close(refined.weights[:, 0], weights[refined.cache.order], rtol=0, atol=1e-6)
    logits = logits_of(refined.model, data.test, 50, POINT)
    torch.testing.assert_close(logits, by_formula(data, data.test, corrected, residual, weights), rtol=1e-5, atol=1e-4)


@BOTH
@SHOTS
def test_before_the_first_step_it_is_tip_adapter(shots, corrected):
    data = draw(shots=shots)
    one = Refined(data, corrected, CHANNELS).model
    other = tip_model(data, data.cache.among_images(corrected), corrected)
    for point in (POINT, Point(0.7, 4.0)):
        torch.testing.assert_close(*(logits_of(model, data.test, 50, point) for model in (one, other)), rtol=1e-5, atol=1e-5)


def test_alpha_0_before_the_first_step_is_zero_shot():
    data = draw()
    logits = logits_of(Refined(data, False, CHANNELS).model, data.test, 50, Point(0.0, 1.0))
    torch.testing.assert_close(logits, data.zero_shot(data.test), rtol=1e-6, atol=1e-5)


def test_other_channels_are_left_alone():
    data = draw()
    refined = Refined(data, False, CHANNELS)
    refine(refined, POINT, replace(RECIPE, epochs=2), seed=0)
    only = torch.zeros(1, 32).index_fill(1, torch.tensor([3]), 1.0)  # an image that lies on a channel that was not chosen
    image = replace(data.test[:1], original=only, adapted=only)
    torch.testing.assert_close(refined.affine(image).base, 100 * data.classifier[:, 3][None])


@pytest.mark.parametrize(
    ("dataset", "steps", "lr", "channels"), [("EuroSAT", 200, 1e-3, 28), ("Food101", 30, 1e-4, 28), ("", 30, 1e-3, 28)]
)
def test_published_recipes(dataset, steps, lr, channels):
    fitted = METHODS["ape_t"].fit(draw(dataset=dataset), FewShotOptions(search="fixed"))
    assert (fitted.facts["steps"], fitted.facts["lr"], fitted.facts["channels"]) == (steps, lr, channels)
    assert set(fitted.hyperparameters) == {"alpha", "beta"}


def test_every_published_data_set_is_one_of_ape():
    from fewshot.published import APE

    assert set(ape_t.APE_T) == set(APE)
