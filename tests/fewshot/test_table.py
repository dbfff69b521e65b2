"""What every training-free entry of METHODS promises."""

from dataclasses import replace

import pytest
import torch

from fewshot.affine import Point, logits_of
from fewshot.methods import ape, tip_adapter, tip_x
from fewshot.options import FewShotOptions
from fewshot.search import Grid
from fewshot.table import METHODS
from tests.fewshot.drawn_features import correct, draw

TRAINING_FREE = [name for name, method in METHODS.items() if not method.trains]
QUICK = Grid((0.0, 1.0, 5.0), (0.0, 1.0, 5.0), (0.0, 0.5))


@pytest.fixture(autouse=True)
def small_grids(monkeypatch):
    monkeypatch.setattr(tip_x, "tip_x_grid", lambda *_: QUICK)
    monkeypatch.setattr(ape, "ape_grid", lambda *_: QUICK)
    monkeypatch.setattr(tip_adapter, "tip_grid", lambda *_: replace(QUICK, gammas=(0.0,)))


def test_the_training_free_methods():
    assert set(TRAINING_FREE) == {
        *("zero_shot", "tip_adapter", "tip_adapter_corrected", "tip_x", "tip_x_corrected", "ape", "ape_corrected"),
    }


def test_names_and_what_they_need():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.needs_adapter == name.endswith("_corrected")
        assert "\n" not in method.description


@pytest.mark.parametrize("search", ["exact", "grid", "fixed"])
@pytest.mark.parametrize("name", TRAINING_FREE)
def test_a_prediction_does_not_depend_on_the_other_images(name, search):
    data = draw(noise=0.4)
    logits = METHODS[name].fit(data, FewShotOptions(search=search)).logits
    whole, order = logits(data.test), torch.arange(len(data.test)).flip(0)
    torch.testing.assert_close(logits(data.test[order]).flip(0), whole, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits(data.test[3:4]), whole[3:4], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("search", ["exact", "grid", "fixed"])
@pytest.mark.parametrize("name", TRAINING_FREE)
def test_test_images_are_not_looked_at(name, search):
    data = draw(noise=0.4)
    one = METHODS[name].fit(data, FewShotOptions(search=search))
    other = METHODS[name].fit(replace(data, test=data.test[:2]), FewShotOptions(search=search))
    assert one.hyperparameters == other.hyperparameters
    assert torch.equal(one.logits(data.val), other.logits(data.val))


@pytest.mark.parametrize("search", ["exact", "grid", "fixed"])
@pytest.mark.parametrize("name", TRAINING_FREE)
def test_the_count_of_validation_images_is_that_of_the_logits(name, search):
    data = draw(noise=0.4)
    fitted = METHODS[name].fit(data, FewShotOptions(search=search))
    assert fitted.val_correct == correct(fitted.logits(data.val), data.val.labels)
    assert set(fitted.hyperparameters) <= {"alpha", "beta", "gamma"}


@pytest.mark.parametrize("name", ["tip_adapter", "tip_x", "ape"])
def test_alpha_and_gamma_0_is_zero_shot(name):
    data = draw()
    model = {
        "tip_adapter": lambda: tip_adapter.tip_model(data, data.cache.original, False),
        "tip_x": lambda: tip_x.tip_x_model(data, False, False),
        "ape": lambda: ape.ape_model(data, torch.arange(16), False),
    }[name]()
    logits = logits_of(model, data.test, 50, Point(0.0, 5.0, 0.0))
    assert torch.equal(logits, data.zero_shot(data.test))
    torch.testing.assert_close(logits, METHODS["zero_shot"].fit(data, FewShotOptions()).logits(data.test))


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_the_order_of_the_labelled_images_does_not_matter(name):
    data = draw(shots=[5, 1, 2, 2, 9, 1, 4])
    shuffled = replace(data, cache=data.cache[torch.randperm(len(data.cache), generator=torch.Generator().manual_seed(1))])
    one, other = (METHODS[name].fit(some, FewShotOptions(search="fixed")).logits(data.test) for some in (data, shuffled))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_without_validation_there_is_no_count(name):
    data = draw()
    for val in (None, data.val[:0]):
        assert METHODS[name].fit(replace(data, val=val), FewShotOptions()).val_correct is None


def test_zero_shot_needs_no_labelled_image():
    data = draw()
    logits = METHODS["zero_shot"].fit(replace(data, cache=data.cache[:0], val=None), FewShotOptions()).logits(data.test)
    assert torch.equal(logits, data.zero_shot(data.test))
