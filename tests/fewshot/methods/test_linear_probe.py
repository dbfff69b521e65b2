"""The linear probe: its search, its published penalty, classes without images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fewshot.data import Features
from fewshot.methods import linear_probe
from fewshot.methods.linear_probe import ProbeFit, penalty_at, searched
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from metrics.linear_probe import INVERSE_PENALTY, LENGTH
from tests.fewshot.drawn_features import correct, draw


def test_the_published_penalty_against_scikit_learn():
    data = draw(shots=[5, 1, 2, 2, 9, 1, 4])
    fitted = METHODS["linear_probe"].fit(data, FewShotOptions(search="fixed"))
    seen, unseen = (LENGTH * images.original.double().numpy() for images in (data.cache, data.test))
    other = LogisticRegression(C=INVERSE_PENALTY, max_iter=5000, tol=1e-9).fit(seen, data.cache.labels.numpy())
    expected = other.predict_proba(unseen)
    np.testing.assert_allclose(fitted.logits(data.test).softmax(dim=1).numpy(), expected, atol=1e-4)
    assert fitted.hyperparameters == {"penalty": 1 / INVERSE_PENALTY}


class Scripted:
    """Stands in for fits: of the probe at 10^(i/8), ``accuracy(i)`` validation images are right."""

    def __init__(self, accuracy):
        self.accuracy, self.tried = accuracy, []

    def at(self, penalty, start=None):
        place = round(8 * np.log10(penalty))
        self.tried.append(place)
        probe = type("Probe", (), {})()
        probe.correct = lambda val: self.accuracy(place)
        return probe


@pytest.mark.parametrize("peak", [-48, -47, -9, 0, 1, 23, 31, 48])
def test_a_single_peak_is_found_in_at_most_15_fits(peak):
    fit = Scripted(lambda place: -abs(place - peak))
    assert searched(fit, None)[0] == pytest.approx(penalty_at(peak))
    assert fit.tried[:7] == [48, 32, 16, 0, -16, -32, -48]
    assert len(fit.tried) == len(set(fit.tried)) <= 15
    assert all(abs(place) <= 48 for place in fit.tried)


def test_of_equals_the_greatest_penalty_wins():
    assert searched(Scripted(lambda place: min(3, 10 - place)), None)[0] == pytest.approx(penalty_at(7))


def test_the_chosen_penalty_is_as_good_as_any_that_was_tried(monkeypatch):
    data, tried = draw(noise=0.5), []
    plain = ProbeFit.at
    monkeypatch.setattr(ProbeFit, "at", lambda self, *given: tried.append(plain(self, *given)) or tried[-1])
    fitted = METHODS["linear_probe"].fit(data, FewShotOptions())
    assert fitted.val_correct == max(probe.correct(data.val) for probe in tried) == correct(fitted.logits(data.val), data.val.labels)
    assert fitted.facts["search"] == "halving"


def test_a_class_without_labelled_images_is_never_chosen():
    data = draw(shots=[3, 3, 0, 3, 3, 0, 3])
    logits = METHODS["linear_probe"].fit(data, FewShotOptions()).logits(data.test)
    assert logits.isfinite().all()
    assert not set(logits.argmax(dim=1).tolist()) & {2, 5}


def test_the_only_class_with_images_is_always_chosen():
    data = replace(draw(classes=3), cache=Features(torch.eye(4, 32), None, torch.ones(4, dtype=torch.int64)))
    assert (METHODS["linear_probe"].fit(data, FewShotOptions()).logits(data.test).argmax(dim=1) == 1).all()


def test_texts_are_not_looked_at():
    data = draw()
    one, other = (METHODS["linear_probe"].fit(some, FewShotOptions()) for some in (data, replace(data, classifier=-data.classifier)))
    assert torch.equal(one.logits(data.test), other.logits(data.test))


def test_constants_of_the_search():
    assert (penalty_at(-linear_probe.LAST), penalty_at(linear_probe.LAST)) == pytest.approx((1e-6, 1e6))
