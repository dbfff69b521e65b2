"""Tip-X, against the formula by loops; the divergences of every image; statistics of no test image."""

from dataclasses import replace

import pytest
import torch

import fewshot.affine
from fewshot.cache import Cache
from fewshot.methods.tip_x import Divergence, range_among_keys, range_to_keys
from fewshot.options import FewShotOptions
from fewshot.table import METHODS
from tests.fewshot.drawn_features import draw, one_hot

FIXED = FewShotOptions(search="fixed")
UNBALANCED = [5, 1, 2, 2, 9, 1, 4]


def divergence_by_loops(data, images):
    """KL(P_i || Q_j) [N, M] in float64, pair by pair."""
    p = (images.original.double() @ data.classifier.double().T / 0.5).softmax(dim=1)
    q = (data.cache.original.double() @ data.classifier.double().T / 0.5).softmax(dim=1)
    return torch.stack([torch.stack([(row * (row.log() - other.log())).sum() for other in q]) for row in p])


def logits_by_formula(data, images, ranged, corrected, alpha=1.17, beta=1.0, gamma=1.0):
    affinity = images.among_images(corrected).double() @ data.cache.among_images(corrected).double().T
    reference = ranged.among_images(corrected).double() @ data.cache.among_images(corrected).double().T
    d, all_d = divergence_by_loops(data, images), divergence_by_loops(data, ranged)
    m = (d - all_d.min()) / (all_d.max() - all_d.min()) * (reference.max() - reference.min()) + reference.min()
    z, v = 100 * images.original.double() @ data.classifier.double().T, one_hot(data).double()
    return z + alpha * torch.exp(-beta * (1 - affinity)) @ v - gamma * m @ v


@pytest.mark.parametrize("count", [1, 43, 99, 100, 101, 250])
def test_every_row_of_divergences(count):
    """The released code left the last N % 100 rows zero."""
    data = draw(val=count)
    found = Divergence(data).to_keys(data.val).T
    assert found.shape == (count, len(data.cache))
    torch.testing.assert_close(found.double(), divergence_by_loops(data, data.val), rtol=1e-4, atol=1e-7)
    assert (found > -1e-7).all()


@pytest.mark.parametrize("shots", [3, UNBALANCED], ids=["balanced", "unbalanced"])
def test_sums_over_classes_are_those_of_all_divergences(shots):
    data = draw(shots=shots)
    expected = divergence_by_loops(data, data.val) @ one_hot(data).double()
    torch.testing.assert_close(Divergence(data).to_classes(data.val).T.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("shots", [3, UNBALANCED], ids=["balanced", "unbalanced"])
def test_logits_by_the_formula_with_the_ranges_of_validation(shots, corrected):
    data = draw(shots=shots)
    found = METHODS["tip_x_corrected" if corrected else "tip_x"].fit(data, FIXED).logits(data.test)
    torch.testing.assert_close(found.double(), logits_by_formula(data, data.test, data.val, corrected), rtol=1e-5, atol=2e-4)


def test_as_released_the_ranges_are_those_of_the_images_that_are_tested():
    data = draw()
    fitted = METHODS["tip_x"].fit(data, replace(FIXED, as_released=True))
    torch.testing.assert_close(
        fitted.logits(data.test).double(), logits_by_formula(data, data.test, data.test, False), rtol=1e-5, atol=2e-4
    )
    assert not torch.allclose(fitted.logits(data.test)[:5], fitted.logits(data.test[:5]))


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("shots", [1, 3])
def test_a_single_image_has_logits(as_released, shots):
    data = draw(shots=shots)
    logits = METHODS["tip_x"].fit(data, replace(FIXED, as_released=as_released)).logits(data.test[:1])
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("classes", [1, 2])
def test_without_validation_ranges_are_those_of_the_keys(classes):
    data = replace(draw(classes=classes, shots=1), val=None)
    assert METHODS["tip_x"].fit(data, FewShotOptions()).logits(data.test).isfinite().all()


def test_ranges_tile_by_tile(monkeypatch):
    data = draw()
    cache, divergence = Cache(data.cache.original, data.cache.labels, data.classes), Divergence(data)
    whole = range_to_keys(data.val, cache, divergence, False), range_among_keys(data, divergence, False)
    affinity, d = data.cache.original @ data.cache.original.T, divergence_by_loops(data, data.cache)
    others = ~torch.eye(len(cache), dtype=torch.bool)
    expected = (d[others].min(), d[others].max(), affinity[others].min(), affinity[others].max())
    assert whole[1] == pytest.approx([float(end) for end in expected], rel=1e-4, abs=1e-7)
    monkeypatch.setitem(fewshot.affine.TILE_BYTES, "cpu", 1000)
    assert range_to_keys(data.val, cache, divergence, False) == pytest.approx(whole[0], rel=1e-5)
    assert range_among_keys(data, divergence, False) == pytest.approx(whole[1], rel=1e-5)
