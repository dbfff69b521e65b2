"""What every method that trains on features promises."""

from dataclasses import replace

import pytest
import torch

from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import correct, draw

TRAINED = [name for name, method in METHODS.items() if method.trains and method.fit_with_images is None]
FIXED = FewShotOptions(search="fixed")


def test_the_trained_methods():
    assert TRAINED == ["tip_adapter_f", "tip_adapter_f_corrected", "ape_t", "ape_t_corrected", "linear_probe", "clip_adapter"]
    assert [name for name, method in METHODS.items() if method.fit_with_images] == ["clip_lora"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_prediction_does_not_depend_on_the_other_images(name):
    data = draw(noise=0.4)
    logits = METHODS[name].fit(data, FIXED).logits
    whole, order = logits(data.test), torch.arange(len(data.test)).flip(0)
    torch.testing.assert_close(logits(data.test[order]).flip(0), whole, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits(data.test[3:4]), whole[3:4], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_the_seed_and_the_labelled_images_decide_everything(name):
    data = draw(noise=0.4)
    torch.manual_seed(0)
    one = METHODS[name].fit(data, FIXED)
    torch.manual_seed(1)
    other = METHODS[name].fit(replace(data, test=data.test[:2], val=data.val[:3]), FIXED)
    assert one.hyperparameters == other.hyperparameters
    assert one.facts == other.facts
    assert torch.equal(one.logits(data.val), other.logits(data.val))


@pytest.mark.parametrize("name", sorted(set(TRAINED) - {"linear_probe"}))
def test_another_seed_is_another_classifier(name):
    data = draw(shots=8 if name == "clip_adapter" else 40, noise=0.4)  # more than one batch
    one, other = (METHODS[name].fit(data, replace(FIXED, seed=seed)).logits(data.test) for seed in (1, 2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("search", ["exact", "grid"])
@pytest.mark.parametrize("name", TRAINED)
def test_the_count_of_validation_images_is_that_of_the_logits(name, search):
    data = draw(noise=0.4, dim=16)
    fitted = METHODS[name].fit(data, FewShotOptions(search=search))
    assert fitted.val_correct == correct(fitted.logits(data.val), data.val.labels)


@pytest.mark.parametrize("name", TRAINED)
def test_without_validation_there_is_no_count(name):
    fitted = METHODS[name].fit(replace(draw(), val=None), FewShotOptions())
    assert fitted.val_correct is None
    assert fitted.logits(draw().test).isfinite().all()


@pytest.mark.parametrize("name", TRAINED)
def test_features_stay_as_they_are_and_results_need_no_gradient(name):
    data = draw()
    before = [part.clone() for part in (data.cache.original, data.cache.adapted, data.classifier)]
    with torch.no_grad():
        fitted = METHODS[name].fit(data, FIXED)
    assert not fitted.logits(data.test).requires_grad
    for part, copy in zip((data.cache.original, data.cache.adapted, data.classifier), before, strict=True):
        assert torch.equal(part, copy)
        assert not part.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", TRAINED)
def test_a_gpu_gives_the_same(name):
    data = draw(noise=0.4)
    on_gpu = replace(
        data,
        **{part: type(data.cache)(*(rows.cuda() for rows in vars(getattr(data, part)).values())) for part in ("cache", "val", "test")},
        classifier=data.classifier.cuda(),
    )
    one, other = METHODS[name].fit(data, FIXED).logits(data.test), METHODS[name].fit(on_gpu, FIXED).logits(on_gpu.test)
    torch.testing.assert_close(one, other.cpu(), rtol=1e-3, atol=2e-2)
